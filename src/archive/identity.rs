//! Pseudonyms: what the archive keeps in place of patient ids and UIDs, and the sealed original.

use std::fmt;
use std::str::FromStr;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit as _, Payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use super::Secret;
use crate::domain::{ImageId, Key, PatientKeys, PatientPseudonym, Slot};
use crate::error::{Error, ErrorKind, Result};

/// A sealed record: JSON. (1 and 2 were not bound to their file.)
const SEAL_RECORD: u8 = 3;
/// A sealed record with its vector: u32 LE length of the JSON, JSON, f32 LE.
const SEAL_RECORD_AND_VECTOR: u8 = 4;
/// A sealed report about a label: JSON.
const SEAL_REPORT: u8 = 5;
/// A sealed file that waits in the inbox, or failed there.
const SEAL_WAITING: u8 = 6;
/// A sealed list of instances that a followed system had.
const SEAL_ORIGINS: u8 = 7;
const NONCE_BYTES: usize = 12;

/// Patient ids that name nobody, after normalisation. Rows of zeros, `X` or punctuation are recognised apart.
const PLACEHOLDERS: [&str; 24] = [
    "ANON",
    "ANONYMISED",
    "ANONYMIZED",
    "ANONYMOUS",
    "DEIDENTIFIED",
    "DEFAULT",
    "EMPTY",
    "MISSING",
    "N/A",
    "N.A.",
    "NA",
    "NAN",
    "NIL",
    "NO ID",
    "NOID",
    "NONE",
    "NOT AVAILABLE",
    "NULL",
    "PATIENT",
    "REMOVED",
    "UNDEFINED",
    "UNK",
    "UNKNOWN",
    "UNSPECIFIED",
];

/// Whether ids can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityMode {
    /// Pseudonyms only.
    Anonymous,
    /// Pseudonyms, and the interchange record as it came, encrypted.
    Linked,
}

impl FromStr for IdentityMode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "anonymous" => Ok(Self::Anonymous),
            "linked" => Ok(Self::Linked),
            _ => Err(Error::new(
                ErrorKind::InvalidRequest,
                "the identity mode is `anonymous` or `linked`",
            )),
        }
    }
}

impl fmt::Display for IdentityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Linked => "linked",
        })
    }
}

/// Makes an archive's pseudonyms. The same input gives the same pseudonym for as long as the secret is the same.
#[derive(Clone)]
pub struct Identity {
    secret: Secret,
    mode: IdentityMode,
}

impl Identity {
    /// The pseudonyms of one secret.
    pub fn new(secret: Secret, mode: IdentityMode) -> Self {
        Self { secret, mode }
    }

    /// Whether ids can be given back.
    pub fn mode(&self) -> IdentityMode {
        self.mode
    }

    /// Names the secret without telling it: 16 hex digits.
    pub fn secret_id(&self) -> String {
        hex::encode(&self.keyed("secret-id", &[])[..8])
    }

    /// The key of digests of queries in an audit: nothing else is made with it, so that a digest there names no image of the archive.
    pub fn audit_key(&self) -> [u8; 32] {
        self.keyed("audit", &[])
    }

    /// Pseudonyms of a patient: keyed digests of issuer and id, and of no issuer and id, both with outer space and NULs off, runs of space
    /// as one, ASCII letters in upper case. `None` for a blank or a placeholder, which stands for nobody.
    pub fn patient_keys(&self, issuer: Option<&str>, patient_id: &str) -> Option<PatientKeys> {
        let id = normalised(patient_id);
        if is_placeholder(&id) {
            return None;
        }
        let issuer = issuer
            .map(normalised)
            .filter(|issuer| !is_placeholder(issuer))
            .unwrap_or_default();
        let key = |issuer: &str| self.key("patient", &[issuer.as_bytes(), id.as_bytes()]);
        Some(PatientKeys {
            patient: key(&issuer),
            id: key(""),
        })
    }

    /// Pseudonym of a patient with its issuer.
    pub fn patient_key(&self, issuer: Option<&str>, patient_id: &str) -> Option<Key> {
        Some(self.patient_keys(issuer, patient_id)?.patient)
    }

    /// Pseudonym of a Study Instance UID; `None` for a blank.
    pub fn study_key(&self, uid: &str) -> Option<Key> {
        self.uid_key("study", uid)
    }

    /// Pseudonym of a Series Instance UID; `None` for a blank.
    pub fn series_key(&self, uid: &str) -> Option<Key> {
        self.uid_key("series", uid)
    }

    /// Pseudonym of a SOP Instance UID; `None` for a blank.
    pub fn sop_key(&self, uid: &str) -> Option<Key> {
        self.uid_key("sop", uid)
    }

    /// Pseudonym of a file's SHA-256, or of what stands for another frame of it than the first.
    pub fn file_key(&self, digest: &[u8; 32]) -> Key {
        self.key("file", &[digest])
    }

    /// Pseudonym of a file's name; none in mode `anonymous`, where nothing is kept of it.
    pub fn name_key(&self, file: &str) -> Option<Key> {
        (self.mode == IdentityMode::Linked).then(|| self.key("name", &[file.as_bytes()]))
    }

    /// Pseudonym of a raster's digest.
    pub fn pixel_key(&self, digest: &[u8; 32]) -> Key {
        self.key("pixels", &[digest])
    }

    /// Name of an image: the slot of its patient (or, without one, of the image), then a keyed digest of patient and content.
    /// `content` is the raster's digest where it is known, else that of the file and frame.
    pub fn image_id(&self, patient: Option<Key>, content: &[u8; 32]) -> ImageId {
        let of_whom = patient.map(|key| key.0);
        let digest = self.key("image", &[of_whom.as_ref().map_or(&[][..], |key| key), content]);
        ImageId::new(self.slot(patient.unwrap_or(digest)), digest)
    }

    /// The slot that everything of this patient, or this image without one, falls into.
    pub fn slot(&self, key: Key) -> Slot {
        let digest = blake3::hash(&key.0);
        Slot(u16::from_be_bytes([digest.as_bytes()[0], digest.as_bytes()[1]]))
    }

    /// What people see in place of a patient.
    pub fn pseudonym(&self, key: Key) -> String {
        PatientPseudonym::from(key).to_string()
    }

    /// Encrypts the interchange record of a file (AES-256-GCM under a key derived from the secret) so that it opens for that file and no
    /// other; `None` in mode `anonymous`.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn seal(&self, record: &Value, file_key: Key) -> Result<Option<String>> {
        if self.mode == IdentityMode::Anonymous {
            return Ok(None);
        }
        Ok(Some(BASE64.encode(self.encrypt(
            SEAL_RECORD,
            &context(SEAL_RECORD, file_key),
            &json(record)?,
        )?)))
    }

    /// Decrypts what [`Identity::seal`] made.
    ///
    /// # Errors
    /// `Damaged` when it is not that, or another secret's, or another file's.
    pub fn open(&self, sealed: &str, file_key: Key) -> Result<Value> {
        Ok(self.open_with_vector(sealed, file_key)?.0)
    }

    /// Encrypts a record together with its own vector, for a record that stands behind another one's vector.
    pub(super) fn seal_with_vector(&self, record: &Value, file_key: Key, vector: &[f32]) -> Result<String> {
        let record = json(record)?;
        let length = u32::try_from(record.len()).map_err(|_| Error::internal("a record is too long to be sealed"))?;
        let mut plain = length.to_le_bytes().to_vec();
        plain.extend(record);
        plain.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        let context = context(SEAL_RECORD_AND_VECTOR, file_key);
        Ok(BASE64.encode(self.encrypt(SEAL_RECORD_AND_VECTOR, &context, &plain)?))
    }

    /// Decrypts a record, and its vector when that was sealed with it.
    pub(super) fn open_with_vector(&self, sealed: &str, file_key: Key) -> Result<(Value, Option<Vec<f32>>)> {
        let damaged = || Error::new(ErrorKind::Damaged, "a sealed record can't be opened with this secret");
        let bytes = BASE64.decode(sealed).map_err(|_| damaged())?;
        let (&version, rest) = bytes.split_first().ok_or_else(damaged)?;
        let plain = self.decrypt(&context(version, file_key), rest).ok_or_else(damaged)?;
        let (record, vector) = match version {
            SEAL_RECORD => (plain.as_slice(), None),
            SEAL_RECORD_AND_VECTOR => {
                let (length, rest) = plain.split_first_chunk::<4>().ok_or_else(damaged)?;
                let length = u32::from_le_bytes(*length) as usize;
                let (record, vector) = rest.split_at_checked(length).ok_or_else(damaged)?;
                let (components, rest) = vector.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(damaged());
                }
                (
                    record,
                    Some(components.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
                )
            }
            _ => return Err(damaged()),
        };
        Ok((serde_json::from_slice(record).map_err(|_| damaged())?, vector))
    }

    /// Encrypts what somebody wrote about a label, for the report of this name and no other; in either mode, since nobody knows what it says.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub(super) fn seal_report(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>> {
        self.encrypt(SEAL_REPORT, &report_context(name), plain)
    }

    /// Decrypts what [`Identity::seal_report`] made.
    ///
    /// # Errors
    /// `Damaged` when it is not that, or another secret's, or another report's.
    pub(super) fn open_report(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let opened = match sealed.split_first() {
            Some((&SEAL_REPORT, rest)) => self.decrypt(&report_context(name), rest),
            _ => None,
        };
        opened.ok_or_else(|| Error::new(ErrorKind::Damaged, "a report can't be opened with this secret"))
    }

    /// Encrypts what waits under this name of the inbox and no other, in either mode: an upload is not yet without its patient's name.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub(super) fn seal_waiting(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>> {
        self.encrypt(SEAL_WAITING, &waiting_context(name), plain)
    }

    /// Decrypts what [`Identity::seal_waiting`] made.
    ///
    /// # Errors
    /// `Damaged` when it is not that, or another secret's, or another name's.
    pub(super) fn open_waiting(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let opened = match sealed.split_first() {
            Some((&SEAL_WAITING, rest)) => self.decrypt(&waiting_context(name), rest),
            _ => None,
        };
        opened.ok_or_else(|| {
            Error::new(
                ErrorKind::Damaged,
                "a file of the inbox can't be opened with this secret",
            )
        })
    }

    /// Encrypts what a followed system calls its instances, for the list of this name and no other, in either mode: a digest of UIDs is theirs to whoever guesses them.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub(super) fn seal_origins(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>> {
        self.encrypt(SEAL_ORIGINS, &origins_context(name), plain)
    }

    /// Decrypts what [`Identity::seal_origins`] made.
    ///
    /// # Errors
    /// `Damaged` when it is not that, or another secret's, or another list's.
    pub(super) fn open_origins(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let opened = match sealed.split_first() {
            Some((&SEAL_ORIGINS, rest)) => self.decrypt(&origins_context(name), rest),
            _ => None,
        };
        opened.ok_or_else(|| {
            let message = "a list of a followed system's instances can't be opened with this secret";
            Error::new(ErrorKind::Damaged, message)
        })
    }

    /// What was encrypted for `context`: nonce and ciphertext.
    fn decrypt(&self, context: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: sealed,
            aad: context,
        };
        self.cipher().decrypt(&(*nonce).into(), payload).ok()
    }

    fn encrypt(&self, version: u8, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the system gives no random bytes", error))?;
        let payload = Payload {
            msg: plain,
            aad: context,
        };
        let sealed = self
            .cipher()
            .encrypt(&nonce.into(), payload)
            .map_err(|_| Error::internal("a record can't be sealed"))?;
        let mut bytes = vec![version];
        bytes.extend(nonce);
        bytes.extend(sealed);
        Ok(bytes)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new_from_slice(&self.keyed("seal", &[])).expect("a digest has the 32 bytes of an AES-256 key")
    }

    fn uid_key(&self, purpose: &str, uid: &str) -> Option<Key> {
        let uid = uid.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!uid.is_empty()).then(|| self.key(purpose, &[uid.as_bytes()]))
    }

    fn key(&self, purpose: &str, parts: &[&[u8]]) -> Key {
        let digest = self.keyed(purpose, parts);
        Key(*digest.first_chunk().expect("16 of 32 bytes"))
    }

    /// HMAC-SHA256 over the purpose and the parts, each behind its length, so that no two inputs read the same.
    fn keyed(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.bytes()).expect("HMAC takes keys of any length");
        for part in [b"medsearch/identity/1", purpose.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Never the secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

fn waiting_context(name: &str) -> Vec<u8> {
    format!("medsearch/inbox/{SEAL_WAITING}/{name}").into_bytes()
}

fn origins_context(name: &str) -> Vec<u8> {
    format!("medsearch/origins/{SEAL_ORIGINS}/{name}").into_bytes()
}

/// Binds what is sealed to what it is and to its file: whoever writes to the storage can't pass one off as another.
fn context(version: u8, file_key: Key) -> Vec<u8> {
    format!("medsearch/record/{version}/{file_key}").into_bytes()
}

fn report_context(name: &str) -> Vec<u8> {
    format!("medsearch/report/{SEAL_REPORT}/{name}").into_bytes()
}

fn json(record: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(record)
        .map_err(|error| Error::with_source(ErrorKind::Internal, "a record can't be written as JSON", error))
}

fn normalised(text: &str) -> String {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c == '\0')
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").to_ascii_uppercase()
}

fn is_placeholder(id: &str) -> bool {
    let filler = |c: char| matches!(c, '0' | 'X') || !c.is_alphanumeric();
    id.chars().all(filler) || PLACEHOLDERS.contains(&id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(mode: IdentityMode) -> Identity {
        Identity::new(Secret::from_bytes([7; 32]), mode)
    }

    #[test]
    fn patients_are_recognised_however_they_are_written() {
        let identity = identity(IdentityMode::Anonymous);
        let key = |issuer: Option<&str>, id: &str| identity.patient_key(issuer, id);
        assert_eq!(key(None, "abc 12"), key(None, "  ABC \t 12\0"));
        assert_eq!(key(None, "abc"), key(Some(" "), "abc"));
        assert_ne!(key(None, "abc"), key(Some("hospital"), "abc"));
        assert_ne!(key(Some("ab"), "c1"), key(Some("a"), "bc1"));
        let keys = |issuer| identity.patient_keys(issuer, "abc").unwrap();
        assert!(keys(Some("hospital")).has_issuer() && !keys(Some("unknown")).has_issuer());
        assert!(keys(Some("hospital")).may_be(keys(None)) && !keys(Some("hospital")).may_be(keys(Some("other"))));
        for nobody in [
            "",
            "  ",
            "unknown",
            "Anonymous",
            "none",
            "NA",
            "n/a",
            "0",
            "0000",
            "-",
            "???",
            "xxx",
            "NaN",
            "\0",
        ] {
            assert_eq!(key(None, nobody), None, "{nobody:?}");
        }
        for somebody in ["1", "007", "NANCY", "0x1", "患者"] {
            assert!(key(None, somebody).is_some(), "{somebody:?}");
        }
    }

    #[test]
    fn pseudonyms_are_stable_for_good() {
        // Changing any of these makes every archive forget its patients.
        let identity = identity(IdentityMode::Anonymous);
        let patient = identity.patient_key(Some("H"), "p1").unwrap();
        let got = [
            identity.secret_id(),
            patient.to_string(),
            identity.study_key("1.2.3").unwrap().to_string(),
            identity.series_key("1.2.3").unwrap().to_string(),
            identity.sop_key("1.2.3").unwrap().to_string(),
            identity.file_key(&[1; 32]).to_string(),
            identity.pixel_key(&[1; 32]).to_string(),
            identity.image_id(Some(patient), &[1; 32]).to_string(),
            identity.image_id(None, &[1; 32]).to_string(),
            identity.pseudonym(patient),
        ];
        let expected: [&str; 10] = GOLDEN;
        assert_eq!(got, expected);
    }

    const GOLDEN: [&str; 10] = [
        "105a516fc1077eb3",
        "870658d4017d40da8fa8c9da7e505d97",
        "424763f605f975ac8904f24a1071ec6b",
        "6d5bdbc7f49bb773242312ec6035f80f",
        "d489029243850e2635055032e193cf1e",
        "ca5d5ab972dc800296f4e92bcd641dd9",
        "8e3969512a5278ffbf04d67a6e8d9a98",
        "e9593ac49f10f8f9eecba354e0f982254bdf",
        "2a413122f5b76048e69d51a7dfd9ee3a742b",
        "p_870658d4017d",
    ];

    #[test]
    fn a_patient_stays_in_one_slot() {
        let identity = identity(IdentityMode::Anonymous);
        let patient = identity.patient_key(None, "p1");
        let ids = [
            identity.image_id(patient, &[1; 32]),
            identity.image_id(patient, &[2; 32]),
        ];
        assert_eq!(ids[0].slot(), ids[1].slot());
        assert_ne!(ids[0], ids[1]);
        assert_ne!(identity.image_id(None, &[1; 32]), ids[0]);
        assert_eq!(identity.study_key(" \0"), None);
    }

    #[test]
    fn sealed_records_come_back_as_they_were() {
        let linked = identity(IdentityMode::Linked);
        let file = Key([1; 16]);
        let record = json!({"id": "a", "file": "ä/ö.png", "tags": {"x": "y"}, "age": 45, "weight": 70.1});
        let sealed = linked.seal(&record, file).unwrap().unwrap();
        assert_eq!(linked.open(&sealed, file).unwrap(), record);
        assert_ne!(
            linked.seal(&record, file).unwrap().unwrap(),
            sealed,
            "a nonce is used once"
        );
        assert!(!sealed.contains("png"));
        let of_other_file = linked.open(&sealed, Key([2; 16])).unwrap_err();
        assert_eq!(of_other_file.kind(), ErrorKind::Damaged, "it is bound to its file");

        let other = Identity::new(Secret::from_bytes([8; 32]), IdentityMode::Linked);
        assert_eq!(other.open(&sealed, file).unwrap_err().kind(), ErrorKind::Damaged);
        for broken in ["", "!", "AQ", &sealed[..10], &sealed[1..]] {
            assert_eq!(linked.open(broken, file).unwrap_err().kind(), ErrorKind::Damaged);
        }
        assert_eq!(identity(IdentityMode::Anonymous).seal(&record, file).unwrap(), None);

        let vector = [1.5f32, -0.0, f32::MIN_POSITIVE];
        let both = linked.seal_with_vector(&record, file, &vector).unwrap();
        let (opened, own) = linked.open_with_vector(&both, file).unwrap();
        assert_eq!(opened, record);
        assert_eq!(
            <[f32; 3]>::try_from(own.unwrap()).unwrap().map(f32::to_bits),
            vector.map(f32::to_bits)
        );
        assert_eq!(linked.open(&both, file).unwrap(), record);
        let mut passed_off = BASE64.decode(&both).unwrap();
        passed_off[0] = SEAL_RECORD;
        assert!(linked.open(&BASE64.encode(passed_off), file).is_err());
    }
}
