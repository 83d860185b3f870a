//! Who a message is, over all nodes and for all time: consumers and nodes drop duplicates by it.

use std::fmt;

/// Identity of an uplink message: the node that took it, and where in that node's hand-off log.
///
/// Written as `node:epoch:position`, the epoch in hexadecimal, the position in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity<'a> {
    /// `node_id` of the node.
    pub node: &'a str,
    /// Each start of Mosquitto begins a new one, larger than those before: see [`Epochs`](super::Epochs).
    pub epoch: u64,
    /// Position of the frame in the log.
    pub position: u64,
}

/// Text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message identity (node:epoch in hexadecimal:position)")]
pub struct IdentityError;

impl<'a> Identity<'a> {
    /// Reads `node:epoch:position`.
    ///
    /// # Errors
    /// When a part is missing, the node empty, or a number not in the canonical form that `Display` writes.
    pub fn parse(text: &'a str) -> Result<Identity<'a>, IdentityError> {
        let (rest, position) = text.rsplit_once(':').ok_or(IdentityError)?;
        let (node, epoch) = rest.rsplit_once(':').ok_or(IdentityError)?;
        let canonical =
            |digits: &str| !digits.starts_with('+') && (digits == "0" || !digits.starts_with('0'));
        if node.is_empty()
            || !canonical(epoch)
            || !canonical(position)
            || epoch.contains(|c: char| c.is_ascii_uppercase())
        {
            return Err(IdentityError);
        }
        Ok(Identity {
            node,
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| IdentityError)?,
            position: position.parse().map_err(|_| IdentityError)?,
        })
    }
}

impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}:{}", self.node, self.epoch, self.position)
    }
}
