//! The meaning of a file's columns.

use std::collections::HashMap;

use super::ReplayOptions;
use crate::feeds::RESERVED;

/// The use of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Names the zone.
    Zone,
    /// Becomes `key`, or a part of it; a part with a name is also a free field.
    Key {
        /// Its position among the parts.
        place: usize,
        /// The column's name, if the key has several parts.
        also: Option<String>,
    },
    /// Becomes `price`, and also a field under its own name if that has a meaning (`bid`).
    Price {
        /// The column's own name.
        also: Option<&'static str>,
    },
    /// Becomes `timestamp`.
    Time,
    /// A part of the price: a number under this name.
    Part(String),
    /// A free field under this name.
    Extra(String),
}

/// The use of each column, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) roles: Vec<Role>,
    /// How many columns form the key.
    pub(super) key_parts: usize,
}

/// Fields whose values are numbers.
const PARTS: [&str; 6] = ["energy", "congestion", "loss", "quantity", "bid", "ask"];

const ZONE_NAMES: [&str; 3] = ["zone", "iso", "market_zone"];
const KEY_NAMES: [&str; 7] = ["key", "location", "hub", "node", "symbol", "settlement_point", "pnode"];
const TIME_NAMES: [&str; 6] = ["timestamp", "time", "datetime", "interval_start", "interval start", "ts"];

impl Columns {
    /// Finds the use of each column: as the options say, otherwise by its name.
    pub(super) fn find(names: &[String], options: &ReplayOptions) -> Result<Self, String> {
        let place = |said: &Option<String>, flag: &str, guess: &dyn Fn() -> Option<usize>| match said {
            None => Ok(guess()),
            Some(column) => match names.iter().position(|name| name == column) {
                Some(index) => Ok(Some(index)),
                None => Err(format!("no column `{column}` ({flag}) among: {}", names.join(", "))),
            },
        };
        let first_of = |wanted: &[&str]| {
            let place_of = |want: &&str| names.iter().position(|name| name.eq_ignore_ascii_case(want));
            wanted.iter().find_map(place_of)
        };
        let zone = match &options.zone {
            Some(_) => None,
            None => place(&options.zone_column, "--zone-column", &|| first_of(&ZONE_NAMES))?,
        };
        let said_keys = options.key_columns.iter().map(|column| {
            let index = place(&Some(column.clone()), "--key-column", &|| None)?;
            Ok(index.unwrap_or_default())
        });
        let mut keys = said_keys.collect::<Result<Vec<usize>, String>>()?;
        if keys.is_empty() && options.key.is_none() {
            keys.extend(first_of(&KEY_NAMES));
        }
        let bid = place(&options.bid_column, "--bid-column", &|| first_of(&["bid"]))?;
        let ask = place(&options.ask_column, "--ask-column", &|| first_of(&["ask"]))?;
        let time = place(&options.time_column, "--time-column", &|| first_of(&TIME_NAMES))?;
        let price = place(&options.price_column, "--price-column", &|| {
            first_of(&["price", "lmp"])
                .or_else(|| names.iter().position(|name| name.to_lowercase().starts_with("price")))
        })?;
        if zone.is_none() && options.zone.is_none() {
            return Err(missing("zone", "--zone NAME or --zone-column COLUMN", names));
        }
        if keys.is_empty() && options.key.is_none() {
            return Err(missing("hub, node or symbol", "--key NAME or --key-column COLUMN", names));
        }
        if price.is_none() && (bid.is_none() || ask.is_none()) {
            let flags = "--price-column COLUMN, or for quotes --bid-column COLUMN and --ask-column COLUMN";
            return Err(missing("price", flags, names));
        }
        for (old, _) in &options.rename {
            if !names.contains(old) {
                return Err(format!("no column `{old}` (--rename) among: {}", names.join(", ")));
            }
        }
        let role = |(index, name): (usize, &String)| {
            let renamed = options.rename.iter().find(|(old, _)| old == name).map(|(_, new)| new);
            let place = keys.iter().position(|key| *key == index);
            let index = Some(index);
            let quote = (index == bid).then_some("bid").or((index == ask).then_some("ask"));
            let part_of = |name: &str| PARTS.into_iter().find(|part| part.eq_ignore_ascii_case(name));
            if index == zone {
                Role::Zone
            } else if index == price {
                Role::Price { also: part_of(name).or(quote) }
            } else if index == time {
                Role::Time
            } else if let Some(place) = place {
                // The joined key cannot be split again, so its parts are also stored separately.
                let also = (keys.len() > 1).then(|| renamed.unwrap_or(name).clone());
                Role::Key { place, also }
            } else {
                let name = renamed.unwrap_or(name);
                match quote.or(part_of(name)) {
                    Some(part) => Role::Part(part.to_owned()),
                    None => Role::Extra(name.clone()),
                }
            }
        };
        let columns = Self { roles: names.iter().enumerate().map(role).collect(), key_parts: keys.len() };
        columns.check(names, options.key.is_some())?;
        Ok(columns)
    }

    fn check(&self, names: &[String], has_key: bool) -> Result<(), String> {
        let mut taken: HashMap<&str, &str> = HashMap::with_capacity(names.len());
        if has_key {
            taken.insert("key", "--key");
        } else if self.key_parts > 1 {
            taken.insert("key", "--key-column");
        }
        for (role, name) in self.roles.iter().zip(names) {
            let fields = match role {
                Role::Zone => [None, None],
                Role::Key { also: None, .. } => [Some("key"), None],
                Role::Key { also: Some(field), .. } => [Some(field.as_str()), None],
                Role::Price { also } => [Some("price"), *also],
                Role::Time => [Some("timestamp"), None],
                Role::Part(field) | Role::Extra(field) => [Some(field.as_str()), None],
            };
            for field in fields.into_iter().flatten() {
                if RESERVED.contains(&field) {
                    // In most files `id` is the id of a trade.
                    let other = if name == "id" { "trade_id" } else { "NEW" };
                    return Err(format!(
                        "column `{name}` would become the field `{field}`, which the gateway sets itself: \
                         give it another name, such as --rename {name}={other}"
                    ));
                }
                if let Some(other) = taken.insert(field, name) {
                    return Err(format!(
                        "columns `{other}` and `{name}` would both become the field `{field}`: \
                         give one of them another name with --rename {name}=NEW"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn missing(what: &str, flag: &str, names: &[String]) -> String {
    format!("no column looks like the {what} among: {}; say {flag}", names.join(", "))
}
