//! Finds the lines of a YAML text that a path means. Only what the manifests of kube-vip need is
//! understood: block style, one document. Everything else is refused, so that no line is changed by a
//! wrong guess.

use std::ops::Range;

/// Why a text is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct NotUnderstood {
    /// The number of the line, from 1 on.
    pub line: usize,
    /// What it contains.
    pub what: String,
}

type Result<T> = std::result::Result<T, NotUnderstood>;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// Blank, a comment, or a marker.
    Other,
    /// Content inside a block scalar: part of the value of an earlier line.
    Opaque,
    /// A key, an item, or both.
    Code(Code),
}

/// A key, an item, or both: `- - key: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Code {
    /// Where the first dash is, or the content.
    first: usize,
    has_dash: bool,
    /// Where the content begins; the end of the line if there is only a dash.
    content: usize,
    /// The key, if the content is one, and where its value begins.
    key: Option<(String, usize)>,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its line.
    pub(super) line: usize,
    /// Its column.
    pub(super) column: usize,
    /// Where its value begins in that line.
    pub(super) value: usize,
    /// The lines below it that belong to it.
    pub(super) body: Range<usize>,
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) lines: Range<usize>,
    /// The column of its keys.
    pub(super) column: usize,
}

/// A text whose lines are understood.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) text: Vec<String>,
    lines: Vec<Line>,
}

impl Document {
    /// Reads a text.
    pub(super) fn read(text: &str) -> Result<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text: Vec<String> = text.split('\n').map(str::to_owned).collect();
        let mut lines = Vec::with_capacity(text.len());
        // The column whose deeper lines belong to a block scalar.
        let mut scalar: Option<usize> = None;
        for (at, line) in text.iter().enumerate() {
            let refuse = |what: &str| NotUnderstood { line: at + 1, what: what.into() };
            let indent = line.len() - line.trim_start_matches(' ').len();
            if let Some(column) = scalar {
                if line.trim().is_empty() || indent > column {
                    lines.push(Line::Opaque);
                    continue;
                }
                scalar = None;
            }
            if line.ends_with('\r') {
                return Err(refuse("it ends with a carriage return"));
            }
            let rest = line[indent..].trim_end();
            let is_marker = rest == "---" && !lines.iter().any(|line| matches!(line, Line::Code(_)));
            if rest.is_empty() || rest.starts_with('#') || is_marker {
                lines.push(Line::Other);
                continue;
            }
            let code = code(rest, indent).map_err(refuse)?;
            if let Some(column) = begins_scalar(line, &code) {
                scalar = Some(column);
            }
            lines.push(Line::Code(code));
        }
        Ok(Self { text, lines })
    }

    /// The whole text as a mapping.
    pub(super) fn root(&self) -> Mapping {
        Mapping { lines: 0..self.lines.len(), column: 0 }
    }

    fn code(&self, at: usize) -> Option<&Code> {
        match self.lines.get(at) {
            Some(Line::Code(code)) => Some(code),
            _ => None,
        }
    }

    /// The key of a mapping, if it has it.
    pub(super) fn find(&self, mapping: &Mapping, key: &str) -> Result<Option<Entry>> {
        let mut found = None;
        for line in mapping.lines.clone() {
            let Some(code) = self.code(line).filter(|code| code.content == mapping.column) else {
                continue;
            };
            let Some((name, value)) = &code.key else { continue };
            if name == key {
                if found.is_some() {
                    return refuse(line, &format!("`{key}` is there twice"));
                }
                let body = line + 1..self.end_of_body(line + 1..mapping.lines.end, mapping.column);
                found = Some(Entry { line, column: mapping.column, value: *value, body });
            }
        }
        Ok(found)
    }

    /// Where the lines end that are deeper than a key. A list may begin in the column of its key.
    fn end_of_body(&self, mut rest: Range<usize>, column: usize) -> usize {
        let end = rest.end;
        let is_after = |line: &usize| {
            self.code(*line)
                .is_some_and(|code| code.first < column || (code.first == column && !code.has_dash))
        };
        rest.find(is_after).unwrap_or(end)
    }

    /// The line after the last one of these that belongs to a value.
    pub(super) fn end(&self, lines: Range<usize>) -> usize {
        let start = lines.start;
        let mut lines = lines.rev();
        let last = lines.find(|line| match &self.lines[*line] {
            Line::Code(_) => true,
            Line::Opaque => !self.text[*line].trim().is_empty(),
            Line::Other => false,
        });
        last.map_or(start, |last| last + 1)
    }

    /// The items of a list below a key, each as a mapping. An item that is a scalar is a mapping
    /// without keys.
    pub(super) fn items(&self, body: Range<usize>) -> Result<Vec<Mapping>> {
        let mut codes = body.clone().filter_map(|line| Some((line, self.code(line)?)));
        let Some((line, first)) = codes.next() else { return Ok(Vec::new()) };
        if !first.has_dash {
            return refuse(line, "this is no list in block style");
        }
        let column = first.first;
        let starts: Vec<usize> = body
            .clone()
            .filter(|line| self.code(*line).is_some_and(|code| code.has_dash && code.first == column))
            .collect();
        let ends = starts.iter().skip(1).copied().chain([body.end]);
        let item = |(start, end): (usize, usize)| {
            let below = || (start + 1..end).find_map(|line| self.code(line));
            let code = self.code(start).filter(|code| code.content < self.text[start].trim_end().len());
            let column = code.or_else(below).map_or(column + 2, |code| code.content);
            Mapping { lines: start..end, column }
        };
        Ok(starts.iter().copied().zip(ends).map(item).collect())
    }

    /// The column of the first key of these lines; `None` if they are no mapping.
    pub(super) fn first_column(&self, lines: Range<usize>) -> Option<usize> {
        let mut codes = lines.into_iter().filter_map(|line| self.code(line));
        codes.next().filter(|code| !code.has_dash && code.key.is_some()).map(|code| code.content)
    }

    /// The column of the dash of an item.
    pub(super) fn dash(&self, item: &Mapping) -> usize {
        self.code(item.lines.start).map_or(0, |code| code.first)
    }

    /// The value in the line of a key, and where it ends; what follows is a comment.
    pub(super) fn inline(&self, entry: &Entry) -> (&str, usize) {
        let line = &self.text[entry.line];
        let rest = line.get(entry.value..).unwrap_or_default();
        let value = &rest[..end_of_value(rest)];
        (value, entry.value + value.len())
    }
}

/// A refusal of this line.
pub(super) fn refuse<T>(line: usize, what: &str) -> Result<T> {
    Err(NotUnderstood { line: line + 1, what: what.into() })
}

/// Where the value at the beginning of a text ends: before a comment.
fn end_of_value(text: &str) -> usize {
    let (mut quote, mut before, mut skipped) = (None, ' ', false);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if skipped => skipped = false,
            (Some('"'), '\\') => skipped = true,
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') if matches!(before, ' ' | '[' | '{' | ',' | ':') => {
                quote = Some(character);
            }
            (None, '#') if before == ' ' => return text[..at].trim_end().len(),
            _ => {}
        }
        before = character;
    }
    text.trim_end().len()
}

/// The content of a line that begins at this column.
fn code(rest: &str, first: usize) -> std::result::Result<Code, &'static str> {
    if rest.starts_with("---") || rest.starts_with("...") || rest.starts_with('%') {
        return Err("a file with more than one document is not understood");
    }
    let (mut content, mut left, mut has_dash) = (first, rest, false);
    while left == "-" || left.starts_with("- ") {
        has_dash = true;
        let skipped = left[1..].len() - left[1..].trim_start_matches(' ').len() + 1;
        (content, left) = (content + skipped, &left[skipped..]);
    }
    let key = key(left)?.map(|(name, value)| (name, content + value));
    let value = key.as_ref().map_or(left, |(_, at)| &left[at - content..]);
    check_value(value)?;
    Ok(Code { first, has_dash, content, key })
}

/// A key at the beginning of a text, and where its value begins.
fn key(text: &str) -> std::result::Result<Option<(String, usize)>, &'static str> {
    let (name, after) = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let Some(end) = text[1..].find(quote) else { return Ok(None) };
            (text[1..=end].to_owned(), end + 2)
        }
        Some('?') if text == "?" || text.starts_with("? ") => return Err("`?` is not understood"),
        Some('\t') => return Err("it begins with a tab"),
        Some('{' | '[' | '#' | '&' | '*' | '!' | '|' | '>') | None => return Ok(None),
        Some(_) => {
            let end = text.find(": ").or_else(|| text.ends_with(':').then(|| text.len() - 1));
            let comment = text.find(" #").unwrap_or(text.len());
            match end.filter(|end| *end < comment) {
                Some(end) => (text[..end].trim_end().to_owned(), end),
                None => return Ok(None),
            }
        }
    };
    let Some(value) = text[after..].strip_prefix(':') else { return Ok(None) };
    if !value.is_empty() && !value.starts_with(' ') {
        return Ok(None);
    }
    if name == "<<" {
        return Err("a merge key (`<<`) is not understood");
    }
    let blanks = value.len() - value.trim_start_matches(' ').len();
    Ok(Some((name, after + 1 + blanks)))
}

fn check_value(value: &str) -> std::result::Result<(), &'static str> {
    let value = &value[..end_of_value(value)];
    match value.chars().next() {
        Some('&' | '*') => Err("anchors and aliases are not understood"),
        Some('!') => Err("tags are not understood"),
        Some('\t') => Err("a value begins with a tab"),
        Some(open @ ('{' | '[')) => {
            let close = if open == '{' { '}' } else { ']' };
            if value.ends_with(close) { Ok(()) } else { Err("a value in flow style spans lines") }
        }
        Some(quote @ ('"' | '\'')) if value.len() < 2 || !value.ends_with(quote) => {
            Err("a quoted value spans lines")
        }
        _ => Ok(()),
    }
}

/// The column whose deeper lines belong to the block scalar that this line begins.
fn begins_scalar(line: &str, code: &Code) -> Option<usize> {
    let begin = code.key.as_ref().map_or(code.content, |(_, value)| *value);
    let value = line.get(begin..)?;
    let value = &value[..end_of_value(value)];
    let rest = value.strip_prefix(['|', '>'])?;
    let is_scalar = rest.chars().all(|character| matches!(character, '+' | '-' | '0'..='9'));
    let column = if code.key.is_some() { code.content } else { code.first };
    is_scalar.then_some(column)
}
