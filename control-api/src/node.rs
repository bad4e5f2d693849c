//! Who a broker without a control side of its own is.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use authcache::EntityId;

use crate::OpenError;
use crate::data_dir::DataDir;

/// The data directory of a broker whose control side is elsewhere: it holds nothing but the node's
/// id and the number of its start. Ours until this is dropped.
pub struct Node {
    /// The node, the same in every start.
    pub node: EntityId,
    /// Number of this start, higher than that of the last.
    pub incarnation: u64,
    _data_dir: DataDir,
}

impl Node {
    /// Opens the directory, makes it if need be, and counts this start.
    ///
    /// # Errors
    /// The directory is in use or cannot be made, or its file is damaged.
    pub fn open(data_dir: &Path) -> Result<Node, OpenError> {
        let directory = DataDir::open(data_dir)?;
        let path = directory.file("node");
        let failed = |source| OpenError::Node {
            path: path.clone(),
            source,
        };
        let (node, last) = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text)
                .ok_or_else(|| failed(io::Error::other("expected an id and a number")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (EntityId::from_u128(uuid::Uuid::new_v4().as_u128()), 0)
            }
            Err(error) => return Err(failed(error)),
        };
        let incarnation = last + 1;
        write(&directory, &path, &format!("{node} {incarnation}\n")).map_err(failed)?;
        Ok(Node {
            node,
            incarnation,
            _data_dir: directory,
        })
    }
}

fn parse(text: &str) -> Option<(EntityId, u64)> {
    let (node, incarnation) = text.trim_end().split_once(' ')?;
    Some((EntityId::from_text(node)?, incarnation.parse().ok()?))
}

/// Old or new, whatever happens: written beside it, and renamed when it is on disk.
fn write(directory: &DataDir, path: &PathBuf, text: &str) -> io::Result<()> {
    let beside = directory.file("node.new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_keeps_its_id_and_counts_its_starts() {
        let folder = tempfile::tempdir().unwrap();
        let first = Node::open(folder.path()).unwrap();
        let id = first.node;
        assert_eq!(first.incarnation, 1);
        assert!(Node::open(folder.path()).is_err(), "it is in use");
        drop(first);
        let second = Node::open(folder.path()).unwrap();
        assert_eq!((second.node, second.incarnation), (id, 2));
    }

    #[test]
    fn damaged_file_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("node"), "rubbish").unwrap();
        let text = Node::open(folder.path()).err().unwrap().to_string();
        assert!(text.contains("node"), "{text}");
        let kept = std::fs::read_to_string(folder.path().join("node")).unwrap();
        assert_eq!(kept, "rubbish");
    }
}
