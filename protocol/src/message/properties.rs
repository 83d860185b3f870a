//! MQTT 5 properties of a message, in MQTT 5's own wire form (section 2.2.2): an identifier byte, then one byte
//! (payload format) or strings and binary data with a two-byte big-endian length. The message expiry interval is not
//! among them; it has a field of its own in [`super::Message`].

/// Identifiers of MQTT 5, section 2.2.2.2.
mod id {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION_DATA: u8 = 0x09;
    pub(super) const USER: u8 = 0x26;
}

/// One MQTT 5 property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// Payload format indicator: 0 bytes, 1 UTF-8.
    PayloadFormat(u8),
    /// Content type.
    ContentType(&'a str),
    /// Response topic.
    ResponseTopic(&'a str),
    /// Correlation data.
    CorrelationData(&'a [u8]),
    /// User property: name and value.
    User(&'a str, &'a str),
}

/// Why bytes are not properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PropertyError {
    /// The bytes end within a property.
    #[error("cut short")]
    Short,
    /// An identifier that does not stand here.
    #[error("unknown identifier {0:#04x}")]
    Unknown(u8),
    /// A string that is not UTF-8.
    #[error("text of property {0:#04x} is not UTF-8")]
    Utf8(u8),
}

/// A string or binary value of more than 65,535 bytes, which MQTT cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("MQTT string of {0} bytes; 65535 at most")]
pub struct TooLong(pub usize);

/// Encoded properties, known to be well formed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Checks `bytes` whole and borrows them.
    ///
    /// # Errors
    /// When they are not a sequence of the properties in [`Property`].
    pub fn from_encoded(bytes: &'a [u8]) -> Result<Properties<'a>, PropertyError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = split_property(rest)?;
        }
        Ok(Properties(bytes))
    }

    /// The encoded form.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The properties in their order.
    pub fn iter(&self) -> PropertyIter<'a> {
        PropertyIter(self.0)
    }
}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertyIter<'a>;

    fn into_iter(self) -> PropertyIter<'a> {
        self.iter()
    }
}

/// Iterator over properties.
#[derive(Clone)]
pub struct PropertyIter<'a>(&'a [u8]);

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        // The bytes were checked whole; an error can only mean the end.
        let (property, rest) = split_property(self.0).ok()?;
        self.0 = rest;
        Some(property)
    }
}

fn split_property(bytes: &[u8]) -> Result<(Property<'_>, &[u8]), PropertyError> {
    let (&kind, rest) = bytes.split_first().ok_or(PropertyError::Short)?;
    Ok(match kind {
        id::PAYLOAD_FORMAT => {
            let (&format, rest) = rest.split_first().ok_or(PropertyError::Short)?;
            (Property::PayloadFormat(format), rest)
        }
        id::CONTENT_TYPE => {
            let (text, rest) = split_text(kind, rest)?;
            (Property::ContentType(text), rest)
        }
        id::RESPONSE_TOPIC => {
            let (text, rest) = split_text(kind, rest)?;
            (Property::ResponseTopic(text), rest)
        }
        id::CORRELATION_DATA => {
            let (data, rest) = split_data(rest)?;
            (Property::CorrelationData(data), rest)
        }
        id::USER => {
            let (name, rest) = split_text(kind, rest)?;
            let (value, rest) = split_text(kind, rest)?;
            (Property::User(name, value), rest)
        }
        other => return Err(PropertyError::Unknown(other)),
    })
}

fn split_data(bytes: &[u8]) -> Result<(&[u8], &[u8]), PropertyError> {
    let (len, rest) = bytes.split_first_chunk::<2>().ok_or(PropertyError::Short)?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
        .ok_or(PropertyError::Short)
}

fn split_text(kind: u8, bytes: &[u8]) -> Result<(&str, &[u8]), PropertyError> {
    let (data, rest) = split_data(bytes)?;
    Ok((
        std::str::from_utf8(data).map_err(|_| PropertyError::Utf8(kind))?,
        rest,
    ))
}

/// Builds encoded properties in a buffer that is used again for each message: no allocation once it has grown.
#[derive(Debug, Default, Clone)]
pub struct PropertyBuffer(Vec<u8>);

impl PropertyBuffer {
    /// An empty buffer.
    pub fn new() -> PropertyBuffer {
        PropertyBuffer::default()
    }

    /// An empty buffer with room for `bytes` encoded bytes.
    pub fn with_capacity(bytes: usize) -> PropertyBuffer {
        PropertyBuffer(Vec::with_capacity(bytes))
    }

    /// Forgets the properties and keeps the room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends one property.
    ///
    /// # Errors
    /// When a value is longer than MQTT allows; nothing is appended then.
    pub fn push(&mut self, property: &Property<'_>) -> Result<(), TooLong> {
        let (kind, values): (u8, [&[u8]; 2]) = match property {
            Property::PayloadFormat(format) => {
                self.0.extend_from_slice(&[id::PAYLOAD_FORMAT, *format]);
                return Ok(());
            }
            Property::User(name, value) => (id::USER, [name.as_bytes(), value.as_bytes()]),
            Property::ContentType(text) => (id::CONTENT_TYPE, [text.as_bytes(), &[]]),
            Property::ResponseTopic(text) => (id::RESPONSE_TOPIC, [text.as_bytes(), &[]]),
            Property::CorrelationData(data) => (id::CORRELATION_DATA, [data, &[]]),
        };
        let values = if kind == id::USER {
            &values[..]
        } else {
            &values[..1]
        };
        if let Some(value) = values
            .iter()
            .find(|value| value.len() > usize::from(u16::MAX))
        {
            return Err(TooLong(value.len()));
        }
        self.0.push(kind);
        for value in values {
            self.0
                .extend_from_slice(&(value.len() as u16).to_be_bytes());
            self.0.extend_from_slice(value);
        }
        Ok(())
    }

    /// The properties pushed since the last `clear`.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }
}
