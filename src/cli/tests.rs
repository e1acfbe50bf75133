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
    let commands: [&[&str]; 10] = [
        &[],
        &["serve"],
        &["demo"],
        &["tail"],
        &["publish"],
        &["relay"],
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
    for name in ["serve", "demo", "tail", "publish", "replay", "relay", "order", "health"] {
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

/// The words of the standard library's parsers, of other libraries, and of clap's ranges.
const OF_LIBRARIES: [&str; 19] = [
    "invalid digit",
    "float literal",
    "non-zero type",
    "too large to fit",
    "too small to fit",
    "without a base",
    "relative URL",
    "empty host",
    "port number",
    "empty string",
    "ident at line",
    "EOF while",
    "at line 1 column",
    "missing field",
    "invalid type",
    "provided string was not",
    " is not in ",
    "premature end",
    "NotEnough",
];

#[test]
fn no_argument_is_refused_in_the_words_of_a_library() {
    fn commands(command: &clap::Command, path: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
        found.push((path.to_vec(), command.clone()));
        for sub in command.get_subcommands() {
            let path: Vec<String> = path.iter().cloned().chain([sub.get_name().to_owned()]).collect();
            commands(sub, &path, found);
        }
    }
    let mut cli = Cli::command();
    cli.build();
    let (mut found, mut tried) = (Vec::new(), 0);
    commands(&cli, &[], &mut found);
    for (path, command) in found {
        let options = command.get_arguments().filter_map(|arg| {
            let takes_value = arg.get_action().takes_values();
            takes_value.then(|| arg.get_long().map(|long| vec![format!("--{long}")])).flatten()
        });
        // One positional argument, and a second one.
        let places = [vec![], vec!["pjm".to_owned()], vec!["SOL".to_owned(), "USDC".to_owned()]];
        for before in options.chain(places) {
            for bad in
                ["", "x", "0", "-1", "1.5", "999999999999999999999999", "127.0.0.1:8080", "{", "a b", "é"]
            {
                let last = match before.first() {
                    Some(option) if option.starts_with("--") => vec![format!("{option}={bad}")],
                    _ => before.iter().cloned().chain([bad.to_owned()]).collect(),
                };
                let args = ["zonewire".to_owned()].into_iter().chain(path.iter().cloned()).chain(last);
                let args: Vec<String> = args.collect();
                let Err(error) = Cli::try_parse_from(&args) else { continue };
                let text = in_words(&error).unwrap_or_else(|| error.render().to_string());
                tried += 1;
                for words in OF_LIBRARIES {
                    assert!(!text.contains(words), "{args:?} says {words:?}: {text}");
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
    for (args, expected) in [
        ("tail pjm --count 0", "invalid value '0' for '--count <N>': expected a whole number, 1 or more"),
        ("tail pjm --count x", "invalid value 'x' for '--count <N>': expected a whole number"),
        ("order list --limit=-1", "expected a whole number"),
        (
            "health --url 127.0.0.1:8080",
            "expected an address such as http://127.0.0.1:8080; did you mean http://127.0.0.1:8080?",
        ),
        ("publish pjm --key A --price x", "expected a finite number such as 1.5"),
        ("replay f --speed x", "expected a number from 0.001 to 1,000,000"),
        ("replay f --time-zone Mars", "expected a time zone such as America/New_York, UTC or -05:00"),
        (
            "order place SOL USDC 1 --metadata {",
            "expected a JSON object such as {\"desk\":\"east\"}: it ends too early",
        ),
    ] {
        let error = Cli::try_parse_from(["zonewire"].into_iter().chain(args.split(' '))).unwrap_err();
        let text = in_words(&error).unwrap_or_else(|| error.render().to_string());
        assert!(text.contains(expected), "{args}: {text}");
    }
}
