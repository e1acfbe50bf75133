use std::io::Cursor;

use super::*;

fn with_key(change: impl FnOnce(&mut ReplayOptions)) -> ReplayOptions {
    let mut options = one_key();
    change(&mut options);
    options
}

/// Options for a file without a column for the key.
fn one_key() -> ReplayOptions {
    options(|options| options.key = Some("k".to_owned()))
}

fn options(change: impl FnOnce(&mut ReplayOptions)) -> ReplayOptions {
    let mut options = ReplayOptions::default();
    change(&mut options);
    options
}

fn read(text: &str, options: ReplayOptions) -> Result<Vec<ReplayPrice>, ReplayError> {
    Replay::read("test".to_owned(), Box::new(Cursor::new(text.to_owned())), options)?.collect()
}

fn check(text: &str, options: ReplayOptions, expected: &[(&str, &str)]) {
    let prices = read(text, options).unwrap();
    let found: Vec<(&str, &str)> =
        prices.iter().map(|price| (price.price.zone.as_str(), price.price.json.as_str())).collect();
    assert_eq!(found, expected);
}

fn check_fails(text: &str, options: ReplayOptions, expected: &str) {
    let error = read(text, options).unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
}

#[test]
fn columns_are_found_by_their_names_and_numbers_keep_their_digits() {
    check(
        "time,zone,location,market,price,energy,congestion,loss\n\
         2021-12-01T05:00:00Z,pjm,EASTERN HUB,RT,39.488020,90.34,-51.079428,\n",
        ReplayOptions::default(),
        &[(
            "pjm",
            r#"{"timestamp":"2021-12-01T05:00:00.000Z","key":"EASTERN HUB","market":"RT","price":39.488020,"energy":90.34,"congestion":-51.079428}"#,
        )],
    );
}

#[test]
fn free_fields_are_numbers_only_where_nothing_is_lost() {
    check(
        "zone,price,n,code,big,flag\nz,1,-2.5e3,007,553287559553287559,True\n",
        one_key(),
        &[("z", r#"{"key":"k","price":1,"n":-2.5e3,"code":"007","big":"553287559553287559","flag":"True"}"#)],
    );
}

#[test]
fn ndjson_keeps_order_digits_and_nested_values() {
    check(
        "{\"zone\":\"a\", \"symbol\":\"X\", \"price\":1.50, \"more\": {\"b\": [1.50, 2]}, \"none\":null}\n\n\
         {\"zone\":\"b\",\"hub\":\"Y\",\"price\":\"2\",\"time\":1610064000}\n",
        ReplayOptions::default(),
        &[
            ("a", r#"{"key":"X","price":1.50,"more":{"b": [1.50, 2]}}"#),
            ("b", r#"{"key":"Y","price":2,"timestamp":"2021-01-08T00:00:00.000Z"}"#),
        ],
    );
}

#[test]
fn options_override_names() {
    let options = options(|options| {
        options.zone = Some("btc".parse().unwrap());
        options.price_column = Some("bid".to_owned());
        options.key_columns = vec!["pair".to_owned()];
    });
    check(
        "symbol,pair,bid,ask\nX,BTC/USDT,.5,+1\n",
        options,
        &[("btc", r#"{"symbol":"X","key":"BTC/USDT","price":0.5,"bid":0.5,"ask":1}"#)],
    );
}

#[test]
fn reserved_names_are_refused_with_a_way_out() {
    let text = "zone,price,id\nz,1,5\n";
    check_fails(text, one_key(), "--rename id=trade_id");
    let renamed = with_key(|options| options.rename = vec![("id".to_owned(), "trade_id".to_owned())]);
    check(text, renamed, &[("z", r#"{"key":"k","price":1,"trade_id":5}"#)]);
    let worse = with_key(|options| options.rename = vec![("id".to_owned(), "offset".to_owned())]);
    check_fails(text, worse, "`offset`, which the gateway sets itself");
}

#[test]
fn an_error_names_the_option_that_is_needed() {
    check_fails("symbol,ask\nX,1\n", ReplayOptions::default(), "say --zone NAME");
    check_fails("zone,ask\nX,1\n", one_key(), "say --price-column COLUMN, or for quotes --bid-column COLUMN");
    check_fails("zone,price\nX,1\n", ReplayOptions::default(), "say --key NAME or --key-column COLUMN");
    let wrong = options(|options| options.key_columns = vec!["hub".to_owned()]);
    check_fails("zone,price\nX,1\n", wrong, "no column `hub` (--key-column) among: zone, price");
    let wrong = with_key(|options| options.rename = vec![("a".to_owned(), "b".to_owned())]);
    check_fails("zone,price\nX,1\n", wrong, "no column `a` (--rename)");
}

#[test]
fn a_price_may_be_a_quote() {
    let quotes = [("z", r#"{"key":"k","bid":1.50,"ask":2}"#), ("z", r#"{"key":"k","bid":3,"ask":1}"#)];
    check("zone,bid,ask\nz,1.50,2\nz,3,1\n", one_key(), &quotes);
    let some = [quotes[0], ("z", r#"{"key":"k","price":5}"#)];
    check("zone,price,bid,ask\nz,,1.50,2\nz,5,,\n", one_key(), &some);
    let lines = "{\"zone\":\"z\",\"bid\":1.50,\"ask\":2}\n{\"zone\":\"z\",\"price\":5}\n";
    check(lines, one_key(), &some);
    check_fails("zone,bid,ask\nz,1,\n", one_key(), "line 2: the price is empty, and so is bid or ask");
}

#[test]
fn every_price_has_a_key() {
    check_fails("zone,hub,price\nz,A,1\nz,,1\n", ReplayOptions::default(), "line 3: the key is empty");
    check_fails("zone,key,price\nz,A,1\n", one_key(), "`--key` and `key` would both become");
}

#[test]
fn two_columns_do_not_become_one_field() {
    let both = options(|options| options.key_columns = vec!["hub".to_owned()]);
    check_fails("zone,price,key,hub\nz,1,a,b\n", both, "`key` and `hub` would both become the field `key`");
}

#[test]
fn a_bad_line_is_named_and_the_next_one_can_be_read() {
    for (text, expected) in [
        ("zone,price\nz,1\nz,much\n", "line 3: price \"much\" is not a number"),
        ("zone,price\nz,1\nz\n", "line 3: expected 2 columns as in the header, found 1"),
        ("zone,price\nz,\n", "line 2: the price is empty"),
        ("zone,price\n,1\n", "line 2: the zone is empty"),
        ("zone,price\na b,1\n", "line 2: `a b` is not a valid zone name"),
        ("zone,price,loss\nz,1,NaN\n", "line 2: loss \"NaN\" is not a number"),
        (
            "zone,price,time\nz,1,noon\n",
            "line 2: \"noon\" is not a time that can be read: expected RFC 3339 (2021-01-08T00:00:00.278Z), or seconds, milliseconds, microseconds or nanoseconds since 1970; or, in UTC, 2021-01-08 00:00:00 or 2021-01-08; for any other form say --time-format, such as %m/%d/%Y %H:%M",
        ),
        ("{\"zone\":\"z\",\"price\":1}\n{\n", "line 2: expected one JSON object per line"),
        ("{\"zone\":\"z\",\"price\":1}\n{\"zone\":\"z\"}\n", "line 2: no column looks like the price"),
    ] {
        check_fails(text, one_key(), expected);
    }
    let input = Box::new(Cursor::new("zone,price\nz,x\nz,1\n"));
    let mut replay = Replay::read("test".to_owned(), input, one_key()).unwrap();
    assert!(replay.next().unwrap().is_err());
    assert_eq!(replay.next().unwrap().unwrap().line, 3);
    assert!(replay.next().is_none());
}

#[test]
fn a_record_that_never_ends_is_stopped() {
    let text = format!("zone,price\nz,\"{}", "x".repeat(3 << 20));
    let error = read(&text, one_key()).unwrap_err();
    assert!(format!("{:?}", error).contains("is a quote not closed?"), "{error:?}");
}

#[test]
fn a_byte_order_mark_is_not_part_of_a_name() {
    check("\u{feff}zone,price\nz,1\n", one_key(), &[("z", r#"{"key":"k","price":1}"#)]);
}

#[test]
fn times_are_seconds_with_a_fraction_as_recorders_write_them() {
    let times = |text: &str| -> Vec<String> {
        let zone = options(|options| options.zone = Some("z".parse().unwrap()));
        let prices = read(text, zone).unwrap();
        let value =
            |price: &ReplayPrice| serde_json::from_str::<serde_json::Value>(&price.price.json).unwrap();
        prices.iter().map(|price| value(price)["timestamp"].as_str().unwrap().to_owned()).collect()
    };
    let fractions = ["2021-01-08T00:00:00.123Z", "2021-01-08T00:00:00.623Z"];
    for text in [
        "timestamp,symbol,price,amount\n1610064000.123456,BTC-USD,39432.48,0.1\n1610064000.623456,BTC-USD,39433.10,0.2\n",
        "time,symbol,price\n1610064000.1234,BTC-USD,39432.48\n1610064000.6234,BTC-USD,39433.10\n",
        "timestamp,symbol,price\n1.610064000123456e9,BTC-USD,39432.48\n1.610064000623456e9,BTC-USD,39433.10\n",
        "{\"timestamp\":1610064000.123456,\"symbol\":\"BTC-USD\",\"price\":39432.48}\n{\"timestamp\":1610064000.623456,\"symbol\":\"BTC-USD\",\"price\":39433.10}\n",
        "timestamp,symbol,price\n1610064000123,BTC-USD,39432.48\n1610064000623,BTC-USD,39433.10\n",
    ] {
        assert_eq!(times(text), fractions, "{text}");
    }
    let whole = "timestamp,symbol,price\n1610064000,BTC-USD,39432.48\n1610064001,BTC-USD,39433.10\n";
    assert_eq!(times(whole), ["2021-01-08T00:00:00.000Z", "2021-01-08T00:00:01.000Z"]);
}

#[test]
fn several_columns_make_one_key_and_stay_fields() {
    let keys = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        options(|options| options.key_columns = names)
    };
    let text = "zone,location,market,price\npjm,WESTERN HUB,DAM,41.20\npjm,WESTERN HUB,,41.30\n";
    check(
        text,
        keys(&["location", "market"]),
        &[
            ("pjm", r#"{"location":"WESTERN HUB","market":"DAM","price":41.20,"key":"WESTERN HUB/DAM"}"#),
            ("pjm", r#"{"location":"WESTERN HUB","price":41.30,"key":"WESTERN HUB/"}"#),
        ],
    );
    check(
        "zone,location,market,price\npjm,WESTERN HUB,DAM,41.20\n",
        keys(&["market", "location"]),
        &[("pjm", r#"{"location":"WESTERN HUB","market":"DAM","price":41.20,"key":"DAM/WESTERN HUB"}"#)],
    );
    check_fails(text, keys(&["location", "hub"]), "no column `hub` (--key-column) among: zone, location");
    check_fails(
        "zone,location,market,price\npjm,,,1\n",
        keys(&["location", "market"]),
        "line 2: the key is empty",
    );
}

#[test]
fn a_line_with_bid_and_ask_needs_no_price() {
    check("zone,bid,ask\nz,1.50,1.60\n", one_key(), &[("z", r#"{"key":"k","bid":1.50,"ask":1.60}"#)]);
    let named = with_key(|options| {
        options.bid_column = Some("best bid".to_owned());
        options.ask_column = Some("best offer".to_owned());
    });
    check("zone,best bid,best offer\nz,1.50,1.60\n", named, &[("z", r#"{"key":"k","bid":1.50,"ask":1.60}"#)]);
    let both = "zone,price,bid,ask\nz,,1,2\nz,3,,\nz,,1,\n";
    let input = Box::new(Cursor::new(both));
    let mut replay = Replay::read("test".to_owned(), input, one_key()).unwrap();
    let mut next = || replay.next().unwrap().map(|price| price.price.json).map_err(|error| error.to_string());
    assert_eq!(next().as_deref(), Ok(r#"{"key":"k","bid":1,"ask":2}"#));
    assert_eq!(next().as_deref(), Ok(r#"{"key":"k","price":3}"#));
    assert_eq!(next(), Err("line 4: the price is empty, and so is bid or ask".to_owned()));
}

#[test]
fn other_delimiters_are_hinted_at_and_taken() {
    let semicolon = "zone;price\nz;1\n";
    check_fails(semicolon, one_key(), "there seem to be several columns: say --delimiter ';'");
    check_fails("zone\tprice\nz\t1\n", one_key(), "say --delimiter tab");
    for (text, delimiter) in [(semicolon, ";"), ("zone\tprice\nz\t1\n", "tab"), ("zone|price\nz|1\n", "|")] {
        let with = with_key(|options| options.delimiter = Some(delimiter.parse().unwrap()));
        check(text, with, &[("z", r#"{"key":"k","price":1}"#)]);
    }
    for bad in ["", ";;", "x", "\"", "é", "7"] {
        assert!(bad.parse::<Delimiter>().is_err(), "{bad:?}");
    }
}

#[test]
fn an_error_says_how_to_convert_a_file_into_lines() {
    check_fails("", one_key(), "it is empty");
    check_fails("[{\"zone\":\"z\",\"price\":1}]", one_key(), "this is an array; `jq -c '.[]' FILE`");
    check_fails("{\n  \"zone\": \"z\",\n  \"price\": 1\n}\n", one_key(), "`jq -c . FILE` writes each on one");
    check_fails("{\"zone\":z}\n", one_key(), "line 1: expected one JSON object per line: 'z' is unexpected");
}

#[test]
fn times_may_be_shifted_to_now() {
    let text = "zone,price,time\nz,1,2021-01-01 00:00\nz,2,2021-01-01 00:10\nz,3,\n";
    let begun = Utc::now();
    let prices = read(text, with_key(|options| options.now = Some(10.0))).unwrap();
    let published: Vec<Option<DateTime<Utc>>> = prices
        .iter()
        .map(|price| {
            let fields: serde_json::Value = serde_json::from_str(&price.price.json).unwrap();
            Some(fields.get("timestamp")?.as_str()?.parse().unwrap())
        })
        .collect();
    let (first, second) = (published[0].unwrap(), published[1].unwrap());
    assert!(first.timestamp_millis() >= begun.timestamp_millis() && first <= Utc::now());
    assert_eq!(second - first, chrono::TimeDelta::seconds(60));
    assert_eq!(published[2], None);
    // The original time still decides when a price is due.
    assert_eq!(prices[0].time, Some("2021-01-01T00:00:00Z".parse().unwrap()));
}

/// Returns one byte at a time, as a pipe may.
struct Drops(Cursor<Vec<u8>>);

impl Read for Drops {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

#[test]
fn input_byte_by_byte_reads_like_input_at_once() {
    let mark = "\u{feff}";
    for text in ["zone,price\nz,1.50\n", "\n {\"zone\":\"z\",\"price\":1.50}\n"] {
        for text in [text.to_owned(), format!("{mark}{text}")] {
            let at_once = read(&text, one_key()).unwrap();
            let drops = Box::new(Drops(Cursor::new(text.clone().into_bytes())));
            let drops = Replay::read("test".to_owned(), drops, one_key()).unwrap();
            assert_eq!(drops.collect::<Result<Vec<_>, _>>().unwrap(), at_once, "{text:?}");
            assert_eq!(at_once[0].price.json, r#"{"key":"k","price":1.50}"#);
        }
    }
}
