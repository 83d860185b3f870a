//! Templates: text with variables, filled in for each message.

use std::borrow::Cow;
use std::fmt;

use super::RuleError;
use crate::topic::LEVELS_MAX;

/// Which way the message goes that a template is filled in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Device → RocketMQ.
    Uplink,
    /// RocketMQ → device.
    Downlink,
}

impl Direction {
    fn allowed(self) -> &'static str {
        match self {
            Direction::Uplink => {
                "%c client id, %u user name, %t topic, %1 to %9 and %{10} levels of the topic, %{name} MQTT 5 user property, %b bucket of the topic in a cluster, %% for a percent sign"
            }
            Direction::Downlink => {
                "%k key, %g tag, %{name} property of the RocketMQ message, %% for a percent sign"
            }
        }
    }
}

/// A variable of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// `%c`: client id (uplink).
    ClientId,
    /// `%u`: user name (uplink).
    Username,
    /// `%t`: the whole MQTT topic (uplink).
    Topic,
    /// `%1`…`%9`, `%{10}`…: a level of the MQTT topic, from 1 (uplink).
    Level(u16),
    /// `%b`: the topic's bucket in a cluster, or that of retained messages (uplink).
    Bucket,
    /// `%k`: key of the RocketMQ message (downlink).
    Key,
    /// `%g`: tag of the RocketMQ message (downlink).
    Tag,
    /// `%{name}`: user property of the MQTT 5 message (uplink) or property of the RocketMQ message (downlink).
    Property(String),
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Variable::ClientId => f.write_str("%c"),
            Variable::Username => f.write_str("%u"),
            Variable::Topic => f.write_str("%t"),
            Variable::Level(level @ 1..=9) => write!(f, "%{level}"),
            Variable::Level(level) => write!(f, "%{{{level}}}"),
            Variable::Bucket => f.write_str("%b"),
            Variable::Key => f.write_str("%k"),
            Variable::Tag => f.write_str("%g"),
            Variable::Property(name) => write!(f, "%{{{name}}}"),
        }
    }
}

/// The values of a message that a template asks for.
pub trait Lookup {
    /// The value of `variable`, or nothing when this message has none.
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>>;
}

/// A message lacks the value of a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message has no {0}")]
pub struct Missing(pub Variable);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

/// Text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Reads a template; `direction` says which variables there are.
    ///
    /// # Errors
    /// When it is empty, or has a `%` that begins no variable of that direction.
    pub fn parse(text: &str, direction: Direction) -> Result<Template, RuleError> {
        if text.is_empty() {
            return Err(RuleError::new(
                "is empty",
                "text, with variables where wanted",
            ));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            rest = match split_variable(after, direction)? {
                (None, rest) => {
                    literal.push('%');
                    rest
                }
                (Some(variable), rest) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Variable(variable));
                    rest
                }
            };
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template { parts })
    }

    /// A template that is one text.
    pub fn literal(text: &str) -> Template {
        Template {
            parts: vec![Part::Literal(text.to_owned())],
        }
    }

    /// A template that is one variable.
    pub fn variable(variable: Variable) -> Template {
        Template {
            parts: vec![Part::Variable(variable)],
        }
    }

    /// Appends the filled-in text to `out`.
    ///
    /// # Errors
    /// With the first variable that has no value; `out` is as long as before then.
    pub fn render(&self, values: &impl Lookup, out: &mut String) -> Result<(), Missing> {
        let before = out.len();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Variable(variable) => match values.value(variable) {
                    Some(value) => out.push_str(&value),
                    None => {
                        out.truncate(before);
                        return Err(Missing(variable.clone()));
                    }
                },
            }
        }
        Ok(())
    }

    /// The filled-in text. Borrowed, when it is one text or one value.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn fill_in<'a>(&'a self, values: &'a impl Lookup) -> Result<Cow<'a, str>, Missing> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Ok(Cow::Borrowed(text)),
            [Part::Variable(variable)] => {
                let value = values.value(variable);
                value.ok_or_else(|| Missing(variable.clone()))
            }
            _ => {
                let mut out = String::new();
                self.render(values, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// The whole text, when it has no variables.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables in their order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Literal(_) => None,
        })
    }

    /// The text between the variables.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Variable(_) => None,
        })
    }
}

/// Writes the template so that it parses to the same one again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('%', "%%"))?,
                Part::Variable(variable) => variable.fmt(f)?,
            }
        }
        Ok(())
    }
}

/// Splits what follows a `%` into the variable (nothing for `%%`) and the rest.
fn split_variable(
    after: &str,
    direction: Direction,
) -> Result<(Option<Variable>, &str), RuleError> {
    let mut chars = after.chars();
    let Some(first) = chars.next() else {
        return Err(RuleError::new("ends with a single %", direction.allowed()));
    };
    let rest = chars.as_str();
    let variable = match (first, direction) {
        ('%', _) => return Ok((None, rest)),
        ('{', _) => {
            let Some((name, rest)) = rest.split_once('}') else {
                return Err(RuleError::new("%{ without its }", direction.allowed()));
            };
            return Ok((Some(braced(name, direction)?), rest));
        }
        ('c', Direction::Uplink) => Variable::ClientId,
        ('u', Direction::Uplink) => Variable::Username,
        ('t', Direction::Uplink) => Variable::Topic,
        ('1'..='9', Direction::Uplink) => Variable::Level(first as u16 - '0' as u16),
        ('b', Direction::Uplink) => Variable::Bucket,
        ('k', Direction::Downlink) => Variable::Key,
        ('g', Direction::Downlink) => Variable::Tag,
        _ => {
            return Err(RuleError::new(
                format!("unknown variable %{first}"),
                direction.allowed(),
            ));
        }
    };
    Ok((Some(variable), rest))
}

/// `%{10}` is a level in an uplink template, everything else a property's name.
fn braced(name: &str, direction: Direction) -> Result<Variable, RuleError> {
    if name.is_empty() {
        return Err(RuleError::new("%{} has no name", direction.allowed()));
    }
    if direction == Direction::Uplink && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return match name.parse::<u16>() {
            Ok(level) if level >= 1 && usize::from(level) <= LEVELS_MAX => {
                Ok(Variable::Level(level))
            }
            _ => Err(RuleError::new(
                format!("no topic has a level %{{{name}}}"),
                format!("%{{1}} to %{{{LEVELS_MAX}}}"),
            )),
        };
    }
    Ok(Variable::Property(name.to_owned()))
}
