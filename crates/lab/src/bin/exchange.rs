//! `zonewire-exchange`: from arguments to an exit code.

fn main() -> anyhow::Result<()> {
    zonewire_lab::exchange::run()
}
