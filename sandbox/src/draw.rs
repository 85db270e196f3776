//! Draws of made-up content: one stream of random numbers for each purpose, and words.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Words that files of an office are made of.
const WORDS: &str = "account agenda alpine annual anchor apple april atlas autumn balance basic beacon berlin bicycle board book \
    branch bridge budget cable camera canvas career castle catalog chart chess client cloud coast coffee column \
    contract copy corner course credit culture daily data desk detail draft drawing dinner east energy estate event \
    export family field final forest form garden glass goal green group guide harbor history holiday house index \
    invoice island journal july kitchen label lake legal lesson letter library list local lunch manual march market \
    master meeting memo menu model monthly morning motor music notes north office order paper partner payroll photo \
    plan planet policy portrait poster price print product profile project quarter quote recipe record region report \
    review river sales sample school season series sheet sketch sport spring staff station statement street studio \
    summary summer table taxes team template theme ticket tour town travel trip unit update valley video village \
    visit weather week winter wood work yearly";

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// One stream of draws, a function of its seed alone.
#[derive(Debug)]
pub(crate) struct Draw {
    stream: ChaCha8Rng,
    words: Vec<&'static str>,
}

impl Draw {
    /// A stream for a purpose of at most 24 bytes; those of other seeds and purposes are others.
    pub(crate) fn new(seed: u64, purpose: &str) -> Draw {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        for (slot, byte) in key[8..].iter_mut().zip(purpose.bytes()) {
            *slot = byte;
        }
        Draw { stream: ChaCha8Rng::from_seed(key), words: WORDS.split_whitespace().collect() }
    }

    /// A number from `least` up to, but not including, `end`.
    pub(crate) fn number(&mut self, least: u64, end: u64) -> u64 {
        // The high half of a product is uniform to one part in 2^50 for spans such as these.
        least + ((u128::from(self.stream.next_u64()) * u128::from(end - least)) >> 64) as u64
    }

    pub(crate) fn chance(&mut self, in_a_hundred: u64) -> bool {
        self.number(0, 100) < in_a_hundred
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.number(0, from.len() as u64) as usize]
    }

    pub(crate) fn word(&mut self) -> &'static str {
        let at = self.number(0, self.words.len() as u64) as usize;
        self.words[at]
    }

    /// `count` different words.
    pub(crate) fn words(&mut self, count: u64) -> Vec<&'static str> {
        let mut found = Vec::new();
        while (found.len() as u64) < count {
            let word = self.word();
            if !found.contains(&word) {
                found.push(word);
            }
        }
        found
    }

    /// A file name of two words and sometimes a number.
    pub(crate) fn name(&mut self) -> String {
        let (first, second) = (self.word(), self.word());
        if self.chance(40) {
            format!("{first}-{second}-{:02}", self.number(1, 60))
        } else {
            format!("{first}-{second}")
        }
    }

    pub(crate) fn bytes(&mut self, least: u64, end: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.number(least, end) as usize];
        self.stream.fill_bytes(&mut bytes);
        bytes
    }

    /// Random letters and digits that stand where a secret would.
    pub(crate) fn secret(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(self.pick(LETTERS))).collect()
    }

    /// Lines of words, of about `size` bytes.
    pub(crate) fn prose(&mut self, size: u64) -> String {
        let mut text = String::new();
        while (text.len() as u64) < size {
            for at in 0..self.number(6, 14) {
                if at > 0 {
                    text.push(' ');
                }
                text.push_str(self.word());
            }
            text.push('\n');
        }
        text
    }

    /// `rows` comma-separated rows below a heading.
    pub(crate) fn table(&mut self, rows: u64) -> String {
        let mut text = "date,item,amount,city\n".to_owned();
        for _ in 0..rows {
            let (month, day) = (self.number(1, 13), self.number(1, 29));
            let (item, euros, cents, city) = (self.word(), self.number(1, 999), self.number(0, 100), self.word());
            text.push_str(&format!("2024-{month:02}-{day:02},{item},{euros}.{cents:02},{city}\n"));
        }
        text
    }
}
