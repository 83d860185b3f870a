//! Splitting a rule into tokens, and writing tokens so that they split again the same way.

use super::RuleError;

/// Splits at blanks and tabs. `"` begins and ends a quoted stretch anywhere in a token; within it `\"` and `\\` stand
/// for `"` and `\`.
pub(super) fn split(text: &str) -> Result<Vec<String>, RuleError> {
    let mut tokens = Vec::new();
    let mut token: Option<String> = None;
    let mut chars = text.chars();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                token.get_or_insert_default();
            }
            '\\' if quoted => match chars.next() {
                Some(escaped @ ('"' | '\\')) => token.get_or_insert_default().push(escaped),
                _ => {
                    return Err(RuleError::new(
                        "a \\ in double quotes is followed by neither \" nor \\",
                        "\\\" and \\\\ in double quotes",
                    ));
                }
            },
            ' ' | '\t' if !quoted => tokens.extend(token.take()),
            c if c.is_control() => {
                return Err(RuleError::new(
                    format!("a control character ({:#04x})", u32::from(c)),
                    "text on one line without control characters",
                ));
            }
            c => token.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(RuleError::new(
            "a double quote is not closed",
            "\"…\" around a token with blanks",
        ));
    }
    tokens.extend(token);
    Ok(tokens)
}

/// Appends `token` to `line`, quoted when it has to be.
pub(super) fn push(line: &mut String, token: &str) {
    if !line.is_empty() {
        line.push(' ');
    }
    if !token.is_empty() && !token.contains([' ', '"']) {
        line.push_str(token);
        return;
    }
    line.push('"');
    for c in token.chars() {
        if matches!(c, '"' | '\\') {
            line.push('\\');
        }
        line.push(c);
    }
    line.push('"');
}

/// The value of a setting that may be given once.
pub(super) fn set_once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), RuleError> {
    if slot.replace(value).is_some() {
        return Err(RuleError::new(
            format!("{name}= is given twice"),
            format!("{name}= at most once in a rule"),
        ));
    }
    Ok(())
}
