//! Finds the code of a mutation by its tokens. Line breaks, indentation and comments do not matter.

use std::ops::Range;

/// The only place with these tokens, as a byte range of `code`. `wanted` may begin and end within a
/// statement. `Err`: how many places there are.
pub(super) fn place(code: &str, wanted: &str) -> Result<Range<usize>, usize> {
    let (code_tokens, wanted_tokens) = (tokens(code), tokens(wanted));
    let text = |of: &str, range: &Range<usize>| of[range.clone()].to_owned();
    let there: Vec<String> = code_tokens.iter().map(|range| text(code, range)).collect();
    let mut wanted: Vec<String> = wanted_tokens.iter().map(|range| text(wanted, range)).collect();
    let with_comma = wanted.pop_if(|last| last == ",").is_some();
    let found: Vec<usize> =
        (0..there.len()).filter(|at| !wanted.is_empty() && there[*at..].starts_with(&wanted)).collect();
    match found[..] {
        [at] => {
            let end = code_tokens[at + wanted.len() - 1].end;
            let comma = code[end..].find(|next: char| !next.is_whitespace()).map(|gap| end + gap);
            let comma = comma.filter(|comma| with_comma && code[*comma..].starts_with(','));
            Ok(code_tokens[at].start..comma.map_or(end, |comma| comma + 1))
        }
        _ => Err(found.len()),
    }
}

/// The byte ranges of words, literals and signs; whitespace and comments are skipped.
fn tokens(code: &str) -> Vec<Range<usize>> {
    let bytes = code.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'"' => text_length(rest),
            byte if is_of_word(byte) => {
                rest.iter().position(|byte| !is_of_word(*byte)).unwrap_or(rest.len())
            }
            _ => 1,
        };
        found.push(at..at + length);
        at += length;
    }
    // rustfmt adds or removes a comma before a bracket with the line break.
    let closes = |at: usize| found.get(at).is_some_and(|next| b")]}".contains(&bytes[next.start]));
    let counts = |at: &usize| bytes[found[*at].start] != b',' || !closes(at + 1);
    (0..found.len()).filter(counts).map(|at| found[at].clone()).collect()
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// A string literal with both quotation marks.
fn text_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rustfmt_does_moves_no_place() {
        let code = "fn f() {\n    // why\n    if a &&\n        b // and so on\n    {\n        say(\"x  y\");\n    }\n}\n";
        assert_eq!(
            &code[place(code, "if a && b {").unwrap()],
            "if a &&\n        b // and so on\n    {"
        );
        assert_eq!(&code[place(code, "say(\"x  y\");").unwrap()], "say(\"x  y\");");
        assert_eq!(place(code, "say(\"x y\");"), Err(0), "the inside of a text is not code");
        assert_eq!(place("f(\n    a,\n    b,\n)", "f(a, b)"), Ok(0..18));
        assert_eq!(place("{ A => b,\n }", "A => b,"), Ok(2..9), "the last arm of a match");
        assert_eq!(place(code, "{"), Err(2));
        assert_eq!(place(code, "aa"), Err(0), "half a word is none");
    }
}
