//! Sealed files: ChaCha20-Poly1305 (RFC 8439) in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015, as BE32).

use std::io::{self, Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32};
use bellwether_artifact::secret::{Secret, SecretError, SecretId, Secrets, random};
use chacha20poly1305::aead::{AeadInOut, KeyInit, Nonce};
use chacha20poly1305::{ChaCha20Poly1305, Key};

/// How a sealed file begins.
const MAGIC: &[u8; 8] = b"BWVAULT1";
/// Magic, name of the secret, salt, length of the sealed metadata.
const HEADER_BYTES: usize = 8 + 32 + 32 + 4;
/// Content that is sealed at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a seal adds.
const TAG_BYTES: usize = 16;
/// Most bytes of metadata that are read.
const MAX_METADATA_BYTES: usize = 64 * 1024;

/// Why a sealed file does not open.
#[derive(Debug)]
pub(super) enum Fault {
    /// The system refused.
    Io(io::Error),
    /// It is sealed with a secret that is not at hand.
    UnknownKey(SecretId),
    /// It is not as it was sealed.
    Damaged(&'static str),
}

/// The beginning of a sealed file, and the key of what follows. Each file has keys of its own, drawn with its salt, so that no
/// part of one fits into another and nonces can be plain numbers.
pub(super) struct Opened {
    /// The metadata.
    pub(super) metadata: Vec<u8>,
    content: ChaCha20Poly1305,
}

/// Seals metadata and `bytes` bytes of content.
pub(super) fn seal(
    secret: &Secret,
    metadata: &[u8],
    mut content: impl Read,
    bytes: u64,
    out: &mut dyn Write,
) -> Result<(), Failed> {
    let mut salt = [0; 32];
    random(&mut salt).map_err(Failed::Random)?;
    let (of_metadata, of_content) = keys(secret, &salt);
    let length = metadata.len() + TAG_BYTES;
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of the sample is too long").into());
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(secret.id().as_bytes());
    header.extend_from_slice(&salt);
    header.extend_from_slice(&(length as u32).to_le_bytes());
    let mut sealed = metadata.to_vec();
    of_metadata.encrypt_in_place(&Nonce::<ChaCha20Poly1305>::default(), &header, &mut sealed).map_err(|_| refused())?;
    out.write_all(&header)?;
    out.write_all(&sealed)?;
    let mut stream = EncryptorBE32::from_aead(of_content, &Default::default());
    let mut left = bytes;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
    while left > CHUNK_BYTES as u64 {
        fill(&mut chunk, &mut content, CHUNK_BYTES)?;
        stream.encrypt_next_in_place(b"", &mut chunk).map_err(|_| refused())?;
        out.write_all(&chunk)?;
        left -= CHUNK_BYTES as u64;
    }
    fill(&mut chunk, &mut content, left as usize)?;
    stream.encrypt_last_in_place(b"", &mut chunk).map_err(|_| refused())?;
    out.write_all(&chunk)?;
    Ok(())
}

/// Opens the beginning of a sealed file.
pub(super) fn open(secrets: &Secrets, sealed: &mut impl Read) -> Result<Opened, Fault> {
    let mut header = [0; HEADER_BYTES];
    read(sealed, &mut header)?;
    let (magic, rest) = header.split_at(8);
    let (key, rest) = rest.split_at(32);
    let (salt, length) = rest.split_at(32);
    if magic != MAGIC {
        return Err(Fault::Damaged("it does not begin as a sealed file does"));
    }
    let array = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap_or_default();
    let key = SecretId::from_bytes(array(key));
    let secret = secrets.get(&key).ok_or(Fault::UnknownKey(key))?;
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if !(TAG_BYTES..=MAX_METADATA_BYTES + TAG_BYTES).contains(&length) {
        return Err(Fault::Damaged("its metadata have an impossible length"));
    }
    let (of_metadata, content) = keys(secret, &array(salt));
    let mut metadata = vec![0; length];
    read(sealed, &mut metadata)?;
    let opened = of_metadata.decrypt_in_place(&Nonce::<ChaCha20Poly1305>::default(), &header, &mut metadata);
    opened.map_err(|_| Fault::Damaged("its metadata were changed"))?;
    Ok(Opened { metadata, content })
}

impl Opened {
    /// Writes the `bytes` bytes of content that follow, and demands that nothing follows them. Until it returns, nothing
    /// that was written may be believed.
    pub(super) fn content(self, sealed: &mut impl Read, bytes: u64, out: &mut dyn Write) -> Result<(), Fault> {
        let changed = |_| Fault::Damaged("its content was changed");
        let mut stream = DecryptorBE32::from_aead(self.content, &Default::default());
        let mut left = bytes;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        while left > CHUNK_BYTES as u64 {
            refill(&mut chunk, sealed, CHUNK_BYTES + TAG_BYTES)?;
            stream.decrypt_next_in_place(b"", &mut chunk).map_err(changed)?;
            out.write_all(&chunk).map_err(Fault::Io)?;
            left -= CHUNK_BYTES as u64;
        }
        refill(&mut chunk, sealed, left as usize + TAG_BYTES)?;
        stream.decrypt_last_in_place(b"", &mut chunk).map_err(changed)?;
        out.write_all(&chunk).map_err(Fault::Io)?;
        match sealed.read(&mut [0]).map_err(Fault::Io)? {
            0 => Ok(()),
            _ => Err(Fault::Damaged("something follows its end")),
        }
    }
}

/// Why nothing was sealed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Reading or writing failed.
    Io(io::Error),
    /// No salt could be drawn.
    Random(SecretError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

fn keys(secret: &Secret, salt: &[u8; 32]) -> (ChaCha20Poly1305, ChaCha20Poly1305) {
    let cipher = |purpose: &[u8]| ChaCha20Poly1305::new(&Key::from(*secret.derive(&[purpose, salt])));
    (cipher(b"bellwether vault metadata v1\0"), cipher(b"bellwether vault content v1\0"))
}

/// Only more than 2^48 bytes could be refused.
fn refused() -> io::Error {
    io::Error::other("the cipher refuses so many bytes")
}

fn fill(chunk: &mut Vec<u8>, from: &mut impl Read, bytes: usize) -> io::Result<()> {
    chunk.clear();
    chunk.resize(bytes, 0);
    from.read_exact(chunk)
}

fn refill(chunk: &mut Vec<u8>, from: &mut impl Read, bytes: usize) -> Result<(), Fault> {
    chunk.clear();
    chunk.resize(bytes, 0);
    read(from, chunk)
}

fn read(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), Fault> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged("its end is missing"),
        _ => Fault::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use bellwether_artifact::secret::Purpose;
    use proptest::prelude::*;

    use super::*;

    fn sealed(secrets: &Secrets, metadata: &[u8], content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal(secrets.newest(), metadata, content, content.len() as u64, &mut out).unwrap();
        out
    }

    fn unsealed(secrets: &Secrets, mut sealed: &[u8], bytes: u64) -> Result<(Vec<u8>, Vec<u8>), Fault> {
        let mut opened = open(secrets, &mut sealed)?;
        let metadata = std::mem::take(&mut opened.metadata);
        let mut content = Vec::new();
        opened.content(&mut sealed, bytes, &mut content)?;
        Ok((metadata, content))
    }

    fn secrets() -> Secrets {
        Secrets::new(Purpose::Vault, Secret::generate().unwrap())
    }

    #[test]
    fn lengths_around_the_chunks_come_back() {
        let secrets = secrets();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let content: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
            let file = sealed(&secrets, b"meta", &content);
            assert_eq!(file.windows(4).filter(|four| *four == b"meta").count(), 0);
            assert_eq!(unsealed(&secrets, &file, length as u64).unwrap(), (b"meta".to_vec(), content));
        }
    }

    #[test]
    fn whole_chunks_can_neither_move_nor_vanish() {
        let secrets = secrets();
        let content = vec![5; 3 * CHUNK_BYTES];
        let file = sealed(&secrets, b"", &content);
        let (head, chunks) = file.split_at(file.len() - 3 * (CHUNK_BYTES + TAG_BYTES));
        let chunk = |index: usize| &chunks[index * (CHUNK_BYTES + TAG_BYTES)..(index + 1) * (CHUNK_BYTES + TAG_BYTES)];
        for order in [vec![1, 0, 2], vec![0, 0, 2], vec![0, 1], vec![0, 2], vec![0, 1, 2, 2]] {
            let other = [head].into_iter().chain(order.iter().map(|index| chunk(*index))).collect::<Vec<_>>().concat();
            let bytes = (order.len() * CHUNK_BYTES) as u64;
            assert!(matches!(unsealed(&secrets, &other, bytes), Err(Fault::Damaged(_))), "{order:?}");
            assert!(matches!(unsealed(&secrets, &other, content.len() as u64), Err(Fault::Damaged(_))), "{order:?}");
        }
        assert!(matches!(unsealed(&self::secrets(), &file, 0), Err(Fault::UnknownKey(_))));
    }

    proptest! {
        #[test]
        fn any_change_is_found(
            content in prop::collection::vec(any::<u8>(), 0..300),
            metadata in prop::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
            cut in any::<bool>(),
        ) {
            let secrets = secrets();
            let mut file = sealed(&secrets, &metadata, &content);
            let at = at.index(file.len());
            if cut { file.truncate(at) } else { file[at] ^= flip }
            prop_assert!(unsealed(&secrets, &file, content.len() as u64).is_err());
        }

        #[test]
        fn any_bytes_are_refused(data in prop::collection::vec(any::<u8>(), 0..300), bytes in any::<u64>()) {
            let mut data = data;
            prop_assert!(unsealed(&secrets(), &data, bytes).is_err());
            data.splice(..0, *MAGIC);
            prop_assert!(unsealed(&secrets(), &data, bytes).is_err());
        }
    }
}
