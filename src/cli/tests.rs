use clap::CommandFactory as _;

use super::*;

fn help(path: &[&str], is_long: bool) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let command = path.iter().fold(&mut command, |command, name| {
        command.find_subcommand_mut(name).unwrap_or_else(|| panic!("no command {name}"))
    });
    if is_long { command.render_long_help().to_string() } else { command.render_help().to_string() }
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn short_help_fits_a_screen() {
    let commands: [&[&str]; 9] = [
        &[],
        &["serve"],
        &["demo"],
        &["tail"],
        &["publish"],
        &["order"],
        &["order", "place"],
        &["health"],
        &["config", "show"],
    ];
    for path in commands {
        let lines = help(path, false).lines().count();
        assert!(lines <= 32, "{path:?} has {lines} lines");
    }
}

#[test]
fn help_says_the_exit_codes_and_gives_examples() {
    let text = help(&[], true);
    for code in [exit::CLEAN, exit::FAILED, exit::USAGE, exit::INTERRUPTED] {
        assert!(text.contains(&format!("\n  {code} ")), "{code} is not in {text}");
    }
    for name in ["serve", "demo", "tail", "publish", "replay", "order", "health", "outage-check"] {
        assert!(help(&[name], true).contains("Example"), "{name}");
    }
}

/// `ZONEWIRE_UPDATE_DOCS=1 cargo test` writes the file anew.
#[test]
fn help_is_as_checked_in() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/help.txt");
    let text = help(&[], true);
    if std::env::var_os("ZONEWIRE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    } else {
        assert_eq!(text, std::fs::read_to_string(path).unwrap());
    }
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    for args in [
        "publish pjm {} --price 1",
        "publish pjm --key a",
        "publish pjm --price 1",
        "replay f --key a --key-column b",
        "publish pjm",
        "replay f --zone a --zone-column b",
        "replay f --speed 0",
        "replay f --speed 1e-12",
        "replay f --speed 1e7x",
        "replay f --speed 2 --flat-out",
        "tail",
        "order",
        "order place SOL USDC",
        "order place SOL USDC much",
        "order place SOL USDC 1 --metadata []",
        "order watch 17",
        "order dead-letters --limit 1 retry 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11",
        "outage-check --seed x",
        "outage-check --random 10",
        "outage-check --random 9h",
        "outage-check --nodes 0",
        "outage-check --rate 0",
        "serve --storage disk",
        "serve --set nothing",
    ] {
        let args = std::iter::once("zonewire").chain(args.split(' '));
        assert!(Cli::try_parse_from(args.clone()).is_err(), "{:?}", args.collect::<Vec<_>>());
    }
}

#[test]
fn a_redis_url_on_the_command_line_is_not_printed() {
    let args =
        ["zonewire", "serve", "--redis-url", "redis://:hunter2@h", "--set", "storage.redis.password=hunter2"];
    let cli = Cli::try_parse_from(args).unwrap();
    assert!(!format!("{cli:?}").contains("hunter2"));
}
