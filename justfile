[private]
default:
    @just --list

# Format, lints and docs: the quick part of `just test`
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Everything that must hold before a change goes in
test:
    ./scripts/test

# Measure the gateway; `just bench --quick` says whether the harness works
bench *arguments:
    ./scripts/bench {{ arguments }}

# A gateway with made-up prices at http://127.0.0.1:8080
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# A thousand orders of twenty updates and five thousand watchers: is any update lost, doubled, reordered?
loss-check orders="1000":
    ZONEWIRE_LOSS_CHECK_ORDERS={{ orders }} cargo test --release --test it loss_check -- --nocapture --test-threads 1

# Let Redis fail in every way: what becomes of updates, sockets and the truth? With the allocator of
# packages: the system's keeps what a storm of connections took, which the bound on memory would count.
outages *arguments:
    cargo build --release --features zonewire/jemalloc --workspace --bins
    ./target/release/zonewire-outages {{ arguments }}

# Does a gateway give back what it took? Clients of every kind come and go for so many minutes, Redis is away
# now and then, and memory, descriptors, tasks and keys of Redis must come back to what they were
soak minutes="30" *arguments:
    cargo build --release --features zonewire/jemalloc --workspace --bins
    ./target/release/zonewire-outages --soak {{ minutes }}m {{ arguments }}

# Which changes of what decides who may do what does no test notice? cargo install cargo-mutants --locked
mutants *arguments:
    cargo mutants -p zonewire-access --output target {{ arguments }}

# What the program is built of: licences, sources, duplicates, and why each crate is there
deny:
    ./scripts/dependencies
    cargo deny --locked check bans licenses sources

# More schedules of outages than `just test` runs, in virtual time
simulation seeds="20000":
    ZONEWIRE_SIM_SEEDS={{ seeds }} cargo test --lib simulation

# Two gateways under faults, every frame and message read by the letter, for so many seconds
wire-check seconds="120" *arguments:
    cargo build
    ./scripts/wire-check --seconds {{ seconds }} {{ arguments }}

# Try each parser of outside bytes with what it may not expect, for so many seconds each (nightly, cargo-fuzz)
fuzz seconds="60" *targets:
    ./scripts/fuzz {{ seconds }} {{ targets }}
