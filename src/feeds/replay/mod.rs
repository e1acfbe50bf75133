//! Prices from a CSV or NDJSON file, read as a stream: memory does not grow with the file.

mod columns;
mod input;
mod payload;
pub(crate) mod time;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use self::columns::Columns;
use self::input::{Metered, ReadMeter};
use self::payload::{Cell, PayloadWriter};
use self::time::{TimeFormat, TimeZone};
use super::{FeedPrice, ReplayConfig};
use crate::model::Zone;
use crate::protocol::OrderedFields;
use crate::support::json::json_fault;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileFormat {
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

/// The delimiter of the columns of a CSV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter(u8);

impl Delimiter {
    const COMMA: Self = Self(b',');
    const TAB: Self = Self(b'\t');
}

impl FromStr for Delimiter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            b"tab" | b"\\t" | b"\t" => Ok(Self::TAB),
            [byte @ (b' '..=b'~')] if !byte.is_ascii_alphanumeric() && *byte != b'"' => Ok(Self(*byte)),
            _ => Err("expected a character such as ; or | or the word tab"),
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TAB => f.write_str("tab"),
            Self(byte) => write!(f, "{}", char::from(byte)),
        }
    }
}

text_in_settings!(Delimiter);

/// How to read a file; they are flags of `zonewire replay`. Columns that no option names are found by their
/// names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ReplayOptions {
    /// The zone of all prices
    #[arg(long, value_name = "NAME", conflicts_with = "zone_column")]
    pub(crate) zone: Option<Zone>,
    /// The column that names the zone
    #[arg(long, value_name = "COLUMN")]
    pub(crate) zone_column: Option<String>,
    /// The hub, node or symbol of all prices
    #[arg(long, value_name = "NAME", conflicts_with = "key_columns")]
    pub(crate) key: Option<String>,
    /// The column that names the hub, node or symbol; several columns are joined with `/` in the given
    /// order
    #[arg(long = "key-column", value_name = "COLUMN")]
    pub(crate) key_columns: Vec<String>,
    /// The column that holds the price
    #[arg(long, value_name = "COLUMN")]
    pub(crate) price_column: Option<String>,
    /// The column that holds the bid; a line with bid and ask needs no price
    #[arg(long, value_name = "COLUMN")]
    pub(crate) bid_column: Option<String>,
    /// The column that holds the ask
    #[arg(long, value_name = "COLUMN")]
    pub(crate) ask_column: Option<String>,
    /// The column that holds the time
    #[arg(long, value_name = "COLUMN")]
    pub(crate) time_column: Option<String>,
    /// The format of times in strptime's notation, such as '%m/%d/%Y %H:%M'
    #[arg(long, value_name = "FORM")]
    pub(crate) time_format: Option<TimeFormat>,
    /// The time zone of times without one of their own, such as America/New_York or -05:00
    ///
    /// When clocks are set back, an hour occurs twice: its times count as the first one until they would go
    /// backwards, and then as the second.
    #[arg(long, value_name = "ZONE", default_value_t, hide_default_value = true)]
    pub(crate) time_zone: TimeZone,
    /// Rename a column; `type`, `channel`, `offset`, `id`, `late`, `missedBefore` and `snapshot` must be
    /// renamed
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    pub(crate) rename: Vec<(String, String)>,
    /// The file's format [default: by its name and first byte]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "csv|ndjson")]
    pub(crate) format: Option<FileFormat>,
    /// The character between the columns of a CSV file, such as ';' or tab [default: a comma]
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<Delimiter>,
    /// If set, times are shifted so that the first one becomes the moment at which it is read, and the
    /// others follow so many times faster than in the file.
    #[arg(skip)]
    pub(crate) now: Option<f64>,
}

fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("expected OLD=NEW, such as id=trade_id".to_owned()),
    }
}

impl From<&ReplayConfig> for ReplayOptions {
    fn from(config: &ReplayConfig) -> Self {
        Self {
            zone: config.zone.clone(),
            zone_column: config.zone_column.clone(),
            key: config.key.clone(),
            key_columns: config.key_columns.clone(),
            price_column: config.price_column.clone(),
            bid_column: config.bid_column.clone(),
            ask_column: config.ask_column.clone(),
            time_column: config.time_column.clone(),
            time_format: config.time_format.clone(),
            time_zone: config.time_zone,
            delimiter: config.delimiter,
            now: config.now.then_some(config.speed),
            rename: config.rename.clone().into_iter().collect(),
            ..Self::default()
        }
    }
}

/// Why a file cannot be replayed: the file, its columns, or one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The file cannot be opened or read.
    #[error("cannot read {name}: {cause}")]
    Io { name: String, cause: io::Error },
    /// The columns do not say what is needed.
    #[error("{0}")]
    Columns(String),
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1, the header included.
        line: u64,
        problem: String,
    },
}

/// A price of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReplayPrice {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    /// How far into the file it is, in bytes; approximate.
    pub(crate) at: u64,
    /// Its own time, if it has one.
    pub(crate) time: Option<DateTime<Utc>>,
    /// Its zone and contents.
    pub(crate) price: FeedPrice,
}

/// Reads the prices of a file in order. Blocking; drive it from a thread that may block.
///
/// After a bad line the caller may continue; any other error is final.
pub(crate) struct Replay {
    name: String,
    lines: Lines,
    writer: PayloadWriter,
    meter: ReadMeter,
    is_over: bool,
}

enum Lines {
    Csv { reader: csv::Reader<Input>, record: csv::StringRecord, columns: Columns },
    // Columns may differ from line to line; their uses are found anew when the names change.
    Ndjson { reader: BufReader<Input>, line: u64, read: u64, known: Option<(Vec<String>, Columns)> },
}

type Input = io::Chain<io::Cursor<Vec<u8>>, Metered<Box<dyn Read + Send>>>;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of the beginning is read at most to find the format.
const HEAD_LEN: usize = 512;

/// Reads the beginning of a file, up to the byte that shows its format. A pipe may yield its first byte
/// long before the second one.
fn read_head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut head, mut length) = ([0; HEAD_LEN], 0);
    let shows = |head: &[u8]| {
        let head = without_marks(head);
        !BYTE_ORDER_MARK.starts_with(head) && !head.trim_ascii_start().is_empty()
    };
    while length < HEAD_LEN && !shows(&head[..length]) {
        match input.read(&mut head[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head[..length].to_vec())
}

/// Joined or converted files may have several byte order marks.
fn without_marks(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(BYTE_ORDER_MARK) {
        head = rest;
    }
    head
}

impl Replay {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, or its header lacks something that is needed.
    pub(crate) fn open(path: &Path, mut options: ReplayOptions) -> Result<Self, ReplayError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|cause| ReplayError::Io { name: name.clone(), cause })?;
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        options.format = options.format.or(match extension.as_deref() {
            Some("csv" | "tsv") => Some(FileFormat::Csv),
            Some("ndjson" | "jsonl") => Some(FileFormat::Ndjson),
            _ => None,
        });
        if extension.as_deref() == Some("tsv") {
            options.delimiter = options.delimiter.or(Some(Delimiter::TAB));
        }
        Self::read(name, Box::new(file), options)
    }

    /// Reads from any source, such as standard input; `name` is for error messages.
    ///
    /// # Errors
    /// It cannot be read, or its header lacks something that is needed.
    pub(crate) fn read(
        name: String,
        input: Box<dyn Read + Send>,
        options: ReplayOptions,
    ) -> Result<Self, ReplayError> {
        let (mut input, meter) = Metered::new(input);
        let head = read_head(&mut input).map_err(|cause| ReplayError::Io { name: name.clone(), cause })?;
        let head = without_marks(&head);
        let format = options.format.unwrap_or(match head.trim_ascii_start().first() {
            // An array is not NDJSON either, but that parser's error explains it.
            Some(b'{' | b'[') => FileFormat::Ndjson,
            _ => FileFormat::Csv,
        });
        // The parser gets these bytes as well.
        let input = io::Cursor::new(head.to_vec()).chain(input);
        let lines = match format {
            FileFormat::Csv => csv_lines(&name, input, &options)?,
            FileFormat::Ndjson => {
                Lines::Ndjson { reader: BufReader::new(input), line: 0, read: 0, known: None }
            }
        };
        Ok(Self { name, lines, writer: PayloadWriter::new(options), meter, is_over: false })
    }

    fn read_next(&mut self) -> Result<Option<ReplayPrice>, ReplayError> {
        self.meter.begin_record();
        match &mut self.lines {
            Lines::Csv { reader, record, columns } => {
                let is_there = reader.read_record(record).map_err(|error| csv_error(&self.name, error))?;
                if !is_there {
                    return Ok(None);
                }
                let (line, at) =
                    record.position().map_or((0, 0), |position| (position.line(), position.byte()));
                let cells = record.iter().map(Cell::Text);
                self.writer.write(line, at, columns, cells).map(Some)
            }
            Lines::Ndjson { reader, line, read, known } => {
                let mut text = String::new();
                loop {
                    text.clear();
                    *line += 1;
                    let length = reader.read_line(&mut text).map_err(|cause| {
                        if cause.kind() == io::ErrorKind::InvalidData {
                            ReplayError::Line { line: *line, problem: "not valid UTF-8".to_owned() }
                        } else {
                            ReplayError::Io { name: self.name.clone(), cause }
                        }
                    })?;
                    if length == 0 {
                        return Ok(None);
                    }
                    *read += length as u64;
                    if !text.trim().is_empty() {
                        break;
                    }
                }
                let text = text.trim();
                let fields: OrderedFields<'_> = serde_json::from_str(text)
                    .map_err(|error| ReplayError::Line { line: *line, problem: no_object(text, &error) })?;
                let names: Vec<String> = fields.0.iter().map(|(name, _)| name.clone()).collect();
                let columns = match known.take() {
                    Some((known_names, columns)) if known_names == names => columns,
                    _ => Columns::find(&names, self.writer.options())
                        .map_err(|problem| ReplayError::Line { line: *line, problem })?,
                };
                let cells = fields.0.iter().map(|(_, value)| Cell::Json(value));
                let price = self.writer.write(*line, *read, &columns, cells);
                *known = Some((names, columns));
                price.map(Some)
            }
        }
    }
}

impl Iterator for Replay {
    type Item = Result<ReplayPrice, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.read_next().transpose();
        self.is_over = !matches!(next, Some(Ok(_) | Err(ReplayError::Line { .. })));
        next
    }
}

fn csv_lines(name: &str, input: Input, options: &ReplayOptions) -> Result<Lines, ReplayError> {
    let Delimiter(delimiter) = options.delimiter.unwrap_or(Delimiter::COMMA);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(input);
    let headers = reader.headers().map_err(|error| csv_error(name, error))?;
    let names: Vec<String> = headers.iter().map(str::to_owned).collect();
    if names.iter().all(String::is_empty) {
        return Err(ReplayError::Columns("it is empty, or begins with an empty line".to_owned()));
    }
    let columns = Columns::find(&names, options)
        .map_err(|problem| ReplayError::Columns(format!("{problem}{}", other_delimiter(&names))))?;
    Ok(Lines::Csv { reader, record: csv::StringRecord::new(), columns })
}

/// A hint at the likely delimiter, if the header seems to be a single column.
fn other_delimiter(names: &[String]) -> String {
    let [header] = names else { return String::new() };
    let found = [';', '\t', '|', ','].into_iter().find(|delimiter| header.contains(*delimiter));
    let shown = match found {
        Some('\t') => "tab".to_owned(),
        Some(delimiter) => format!("'{delimiter}'"),
        None => return String::new(),
    };
    format!("; there seem to be several columns: say --delimiter {shown}")
}

/// Why a line is not an object, and how to fix the file.
fn no_object(text: &str, error: &serde_json::Error) -> String {
    let hint = match text.as_bytes().first() {
        Some(b'[') => "this is an array; `jq -c '.[]' FILE` writes its elements so".to_owned(),
        Some(b'{') if error.is_eof() => {
            "this one does not end on its line; `jq -c . FILE` writes each on one".to_owned()
        }
        _ => json_fault(text, error),
    };
    format!("expected one JSON object per line: {hint}")
}

fn csv_error(name: &str, error: csv::Error) -> ReplayError {
    let line = error.position().map_or(0, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} columns as in the header, found {len}")
        }
        csv::ErrorKind::Utf8 { .. } => "not valid UTF-8".to_owned(),
        _ => "it is not a line of a CSV file".to_owned(),
    };
    match error.into_kind() {
        csv::ErrorKind::Io(cause) => ReplayError::Io { name: name.to_owned(), cause },
        _ => ReplayError::Line { line, problem },
    }
}

#[cfg(test)]
mod tests;
