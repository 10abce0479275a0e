//! Changes of a manifest, each of which can be made to the object and to its text. The text is changed
//! line by line, so comments stay. Then it must read as the object that was changed.

use super::lines::{Document, Entry, Mapping, NotUnderstood, refuse};
use serde_json::Value;

/// A step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a mapping.
    Key(&'static str),
    /// An item of a list.
    Item(usize),
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where. What is missing on the way is made.
    pub path: Vec<Step>,
    /// What.
    pub what: What,
}

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A scalar gets this value.
    Set(String),
    /// A list gets an item before the first one.
    First(Value),
    /// A list gets an item after the last one.
    Last(Value),
    /// A list loses its item of this number.
    Remove(usize),
}

/// Why a text is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A line is written in a way that is not understood.
    #[error("{0}: write it in block style")]
    Line(#[from] NotUnderstood),
    /// The text does not read as an object.
    #[error("it is no YAML: {0}")]
    Yaml(String),
    /// The edited text would mean something else.
    #[error("the edited text would not read as intended; nothing was written")]
    Other,
}

type Result<T> = std::result::Result<T, EditError>;

/// Reads a text.
pub fn parsed(text: &str) -> Result<Value> {
    let failed = |error: serde_norway::Error| EditError::Yaml(error.to_string());
    // This form refuses a key that is there twice.
    let value: serde_norway::Value = serde_norway::from_str(text).map_err(failed)?;
    serde_norway::from_value(value).map_err(failed)
}

/// Makes the changes in the text. The result reads as the object with the same changes.
pub fn edited(text: &str, edits: &[Edit]) -> Result<String> {
    let mut object = parsed(text)?;
    let mut lines = text.to_owned();
    for edit in edits {
        edit.change(&mut object);
        lines = match edit.written(&lines) {
            Ok(lines) => lines,
            // In the original text the number of the line is right.
            Err(error) => return Err(edit.written(text).err().unwrap_or(error)),
        };
    }
    if parsed(&lines)? == object { Ok(lines) } else { Err(EditError::Other) }
}

impl Edit {
    /// Makes the change in the object.
    pub fn change(&self, object: &mut Value) {
        let mut at = object;
        for step in &self.path {
            at = match step {
                Step::Key(key) => {
                    if !at.is_object() {
                        *at = Value::Object(serde_json::Map::new());
                    }
                    &mut at[*key]
                }
                Step::Item(number) => match at.get_mut(*number) {
                    Some(item) => item,
                    None => return,
                },
            };
        }
        let items = |at: &mut Value| at.as_array().cloned().unwrap_or_default();
        match &self.what {
            What::Set(value) => *at = value.clone().into(),
            What::First(item) => {
                let mut all = items(at);
                all.insert(0, item.clone());
                *at = all.into();
            }
            What::Last(item) => {
                let mut all = items(at);
                all.push(item.clone());
                *at = all.into();
            }
            What::Remove(number) => {
                let mut all = items(at);
                if *number < all.len() {
                    all.remove(*number);
                }
                *at = all.into();
            }
        }
    }

    fn written(&self, text: &str) -> Result<String> {
        let mut document = Document::read(text)?;
        self.write(&mut document)?;
        Ok(document.text.join("\n") + "\n")
    }

    /// Makes the change in the text.
    fn write(&self, document: &mut Document) -> Result<()> {
        let mut mapping = document.root();
        let mut steps = self.path.iter().copied().peekable();
        while let Some(step) = steps.next() {
            let Step::Key(key) = step else {
                return Ok(refuse(mapping.lines.start, "a list in a list")?);
            };
            let rest: Vec<Step> = steps.clone().collect();
            let Some(entry) = document.find(&mapping, key)? else {
                let end = document.end(mapping.lines.clone());
                let lines = [&[Step::Key(key)], rest.as_slice()].concat();
                insert(document, end, self.block(&lines, mapping.column));
                return Ok(());
            };
            if rest.is_empty() {
                return self.write_value(document, &entry);
            }
            if is_empty(document, &entry) {
                open(document, &entry);
                insert(document, entry.line + 1, self.block(&rest, entry.column + 2));
                return Ok(());
            }
            refuse_inline(document, &entry)?;
            mapping = match steps.peek().copied() {
                Some(Step::Item(number)) => {
                    let items = document.items(entry.body.clone())?;
                    steps.next();
                    match items.get(number) {
                        Some(item) => item.clone(),
                        None => return Ok(refuse(entry.line, "an item is missing")?),
                    }
                }
                _ => below(document, &entry)?,
            };
        }
        Ok(())
    }

    /// Changes the value of a key that is there.
    fn write_value(&self, document: &mut Document, entry: &Entry) -> Result<()> {
        if let What::Set(value) = &self.what {
            let (old, end) = document.inline(entry);
            if old.is_empty() || old.starts_with(['|', '>', '{', '[']) {
                return Ok(refuse(entry.line, "the value is not in the line of its key")?);
            }
            let end_of_body = document.end(entry.body.clone());
            if end_of_body > entry.body.start {
                return Ok(refuse(entry.line, "the value spans lines")?);
            }
            document.text[entry.line].replace_range(entry.value..end, &scalar(value));
            return Ok(());
        }
        if is_empty(document, entry) {
            open(document, entry);
            insert(document, entry.line + 1, self.block(&[], entry.column + 2));
            return Ok(());
        }
        refuse_inline(document, entry)?;
        let items = document.items(entry.body.clone())?;
        let Some(first) = items.first() else {
            return Ok(refuse(entry.line, "this is no list in block style")?);
        };
        let dash = document.dash(first);
        match &self.what {
            What::First(_) => insert(document, first.lines.start, self.block(&[], dash)),
            What::Last(_) => {
                let end = document.end(entry.body.clone());
                insert(document, end, self.block(&[], dash));
            }
            What::Remove(number) => {
                let Some(item) = items.get(*number) else { return Ok(()) };
                let end = document.end(item.lines.clone());
                document.text.drain(item.lines.start..end);
            }
            What::Set(_) => {}
        }
        Ok(())
    }

    /// The lines of the rest of a path with the new value.
    fn block(&self, path: &[Step], column: usize) -> Vec<String> {
        let mut value = Value::Null;
        Self { path: path.to_vec(), what: self.what.clone() }.change(&mut value);
        block(&value, column)
    }
}

/// The mapping below a key.
fn below(document: &Document, entry: &Entry) -> Result<Mapping> {
    let column = document.first_column(entry.body.clone());
    match column {
        Some(column) => Ok(Mapping { lines: entry.body.clone(), column }),
        None => Ok(refuse(entry.line, "this is no mapping in block style")?),
    }
}

fn is_empty(document: &Document, entry: &Entry) -> bool {
    let (value, _) = document.inline(entry);
    let nothing_below = document.end(entry.body.clone()) == entry.body.start;
    nothing_below && matches!(value, "" | "{}" | "[]" | "~" | "null")
}

/// Takes an empty value away, so that lines can follow. A comment stays.
fn open(document: &mut Document, entry: &Entry) {
    let (_, end) = document.inline(entry);
    let line = &mut document.text[entry.line];
    if entry.value < end {
        line.replace_range(entry.value..end, "");
    }
    let length = line.trim_end().len();
    line.truncate(length);
}

fn refuse_inline(document: &Document, entry: &Entry) -> Result<()> {
    match document.inline(entry).0 {
        "" => Ok(()),
        _ => Ok(refuse(entry.line, "this part is in flow style")?),
    }
}

fn insert(document: &mut Document, at: usize, lines: Vec<String>) {
    document.text.splice(at..at, lines);
}

/// Writes a value in block style. It has only mappings, lists and text.
fn block(value: &Value, column: usize) -> Vec<String> {
    let blanks = " ".repeat(column);
    let nested = |head: String, value: &Value| match value {
        Value::Object(_) | Value::Array(_) => {
            let mut lines = vec![head];
            lines.extend(block(value, column + 2));
            lines
        }
        value => vec![format!("{head} {}", scalar(value.as_str().unwrap_or_default()))],
    };
    match value {
        Value::Object(entries) => {
            entries.iter().flat_map(|(key, value)| nested(format!("{blanks}{key}:"), value)).collect()
        }
        Value::Array(items) => items
            .iter()
            .flat_map(|item| {
                let mut lines = block(item, column + 2);
                if let Some(first) = lines.first_mut() {
                    first.replace_range(column..column + 2, "- ");
                }
                lines
            })
            .collect(),
        value => vec![format!("{blanks}{}", scalar(value.as_str().unwrap_or_default()))],
    }
}

/// A text as a scalar: in quotes unless it certainly reads as this text.
fn scalar(text: &str) -> String {
    let is_plain = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '/' | '_' | '.' | ':' | '@' | '-')
    };
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let is_word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if begins && text.chars().all(is_plain) && !text.ends_with(':') && !is_word {
        text.into()
    } else {
        Value::from(text).to_string()
    }
}
