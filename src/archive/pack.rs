//! Packs: many pictures in one object, read by byte range.
//!
//! `MSPACK1\n`, 16 random bytes (which make every pack new: a name that was collected never comes back), 8 zeros, then the pictures one
//! after the other. A [`PackRef`] names a range and carries its digest, so that a part is verified without reading the rest.

use bytes::Bytes;

use super::store::{Store, object_name};
use crate::domain::PackRef;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"MSPACK1\n";
/// Bytes before the first picture.
pub(super) const HEADER_BYTES: u64 = 32;
/// A pack is closed when it is this large.
pub(super) const PACK_BYTES_MAX: usize = 64 << 20;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Thumbnails,
    Pixels,
}

impl Kind {
    /// The folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Thumbnails => "thumbnails",
            Self::Pixels => "pixels",
        }
    }
}

/// Where a picture will be, once its pack has a name.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    offset: u64,
    length: u64,
    blake3: String,
}

impl Slice {
    pub fn of(&self, object: &str) -> PackRef {
        PackRef {
            object: object.to_owned(),
            offset: self.offset,
            length: self.length,
            blake3: self.blake3.clone(),
        }
    }
}

/// A pack that is being filled.
pub(super) struct PackBuilder {
    kind: Kind,
    bytes: Vec<u8>,
}

impl PackBuilder {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            bytes: Vec::new(),
        }
    }

    /// Adds a picture.
    pub fn push(&mut self, picture: &[u8]) -> Slice {
        if self.bytes.is_empty() {
            self.bytes.extend(MAGIC);
            self.bytes.extend(uuid::Uuid::new_v4().into_bytes());
            self.bytes.resize(HEADER_BYTES as usize, 0);
        }
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(picture);
        Slice {
            offset,
            length: picture.len() as u64,
            blake3: digest(picture),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_BYTES_MAX
    }

    /// The pack with its name; the builder is empty again.
    pub async fn finish(&mut self) -> Result<(String, Bytes)> {
        object_name(self.kind.folder(), std::mem::take(&mut self.bytes).into()).await
    }
}

/// Reads one picture.
///
/// # Errors
/// `Unavailable` when the pack is missing, `Damaged` when the bytes are not those that were put in.
pub(super) async fn read(store: &Store, slice: &PackRef) -> Result<Bytes> {
    let end = slice.offset.checked_add(slice.length).ok_or_else(|| damaged(slice))?;
    let bytes = store.get_range(&slice.object, slice.offset..end).await?;
    checked(slice, bytes).map_err(|error| store.damaged(error))
}

/// Takes one picture out of a whole pack.
///
/// # Errors
/// `Damaged` when the bytes are not those that were put in.
pub(super) fn slice(pack: &Bytes, slice: &PackRef) -> Result<Bytes> {
    let range = || {
        let start = usize::try_from(slice.offset).ok()?;
        let end = start.checked_add(usize::try_from(slice.length).ok()?)?;
        (end <= pack.len()).then(|| pack.slice(start..end))
    };
    checked(slice, range().ok_or_else(|| damaged(slice))?)
}

fn checked(slice: &PackRef, bytes: Bytes) -> Result<Bytes> {
    if bytes.len() as u64 == slice.length && digest(&bytes) == slice.blake3 {
        Ok(bytes)
    } else {
        Err(damaged(slice))
    }
}

fn damaged(slice: &PackRef) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!("a picture in `{}` is damaged", slice.object),
    )
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(&blake3::hash(bytes).as_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pictures_come_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().to_str().unwrap()).unwrap();
        let mut builder = PackBuilder::new(Kind::Pixels);
        assert!(builder.is_empty());
        let slices = [builder.push(b"one"), builder.push(b""), builder.push(b"three")];
        let (name, bytes) = builder.finish().await.unwrap();
        assert!(name.starts_with("pixels/") && builder.is_empty());
        store.put_object(&name, bytes.clone()).await.unwrap();
        for (part, expected) in slices.iter().zip(["one", "", "three"]) {
            assert_eq!(slice(&bytes, &part.of(&name)).unwrap(), expected);
            if !expected.is_empty() {
                assert_eq!(read(&store, &part.of(&name)).await.unwrap(), expected);
            }
        }

        let mut beyond = slices[2].of(&name);
        beyond.length += 1;
        assert!(read(&store, &beyond).await.is_err());
        beyond.offset = u64::MAX;
        assert_eq!(read(&store, &beyond).await.unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(slice(&bytes, &beyond).unwrap_err().kind(), ErrorKind::Damaged);
        let path = dir.path().join(&name);
        let mut damaged = std::fs::read(&path).unwrap();
        damaged[HEADER_BYTES as usize] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(
            read(&store, &slices[0].of(&name)).await.unwrap_err().kind(),
            ErrorKind::Damaged
        );
        assert_eq!(read(&store, &slices[2].of(&name)).await.unwrap(), "three");
    }

    #[tokio::test]
    async fn equal_pictures_make_different_packs() {
        let mut names = Vec::new();
        for _ in 0..2 {
            let mut builder = PackBuilder::new(Kind::Thumbnails);
            builder.push(b"same");
            names.push(builder.finish().await.unwrap().0);
        }
        assert_ne!(names[0], names[1]);
    }
}
