//! Texts whose words are as frequent as those of people (Zipf), in several languages, or the texts of a folder.
//!
//! A pool of lines is made once; a mail takes its text from some place of it. Writing each mail word by word would cost
//! more than sending it.

use std::path::Path;

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Bytes of a language's lines: no two mails of usual size say the same in the same place.
const POOL: usize = 400_000;
/// Different words of a language. The commonest thousand make three quarters of a text.
const VOCABULARY: usize = 4000;
/// Bytes that are read of a folder of texts.
const CORPORA_MOST: usize = 64 * 1024 * 1024;
/// RFC 5322 section 2.1.1: lines should have no more characters than 78. Bytes here, which is less.
const LINE: usize = 76;

/// The commonest words, and the syllables of which the rarer ones are made.
const LANGUAGES: [(&str, &str); 6] = [
    (
        "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they \
         which one you were all her she there would their we him been has when who will no more if out so said what \
         up its about than into them can only other new some could time these two may then do first any my now such \
         like our over man me even most made after also did many before must through back years where much your way \
         well down should because each just those people mr how too little state good very make world still own see \
         men work long get here between both life being under never day same another know while last might us great \
         old year off come since against go came right used take three",
        "con ter ver est ment ing tion al pro re in an de per sub lo ca ri mo ta ser for",
    ),
    (
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er \
         hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur \
         bis mehr durch man sein wurde sei Prozent hatte kann gegen vom können schon wenn habe seine Mark ihre dann \
         unter wir soll ich eines Jahr zwei Jahren diese dieser wieder keine Uhr seiner worden will zwischen immer \
         Millionen was sagte gut schöne Grüße",
        "ver ge be er ent un zer auf lich keit ung schaft bar sam los heit zu ab ein über für ßen",
    ),
    (
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont la Les ou avec \
         son Il aux d'un En cette d'une ont ses mais comme on tout nous sa Mais fait été aussi leur bien peut ces y \
         deux A ans l encore n'est marché d Pour donc cours qu'il moins sans C'est Et si entre Un Ce faire elle c'est \
         peu vous Une prix On dont lui également Dans effet pays cas De millions Belgique BEF mois leurs taux années \
         temps groupe après déjà bientôt",
        "con re pré dé ment tion eur ance age é ir oir ê lle sion ro vi ta pa mi lu ça",
    ),
    (
        "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si sin \
         sobre este ya entre cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque \
         qué sólo han yo hay vez puede todos así nos ni parte tiene él uno donde bien tiempo mismo ese ahora cada e \
         vida otro después te otros aunque esa eso hace otra gobierno tan durante siempre día mañana señor",
        "con re des ción dad mente ar er ir do da ra ri to ta ña lla ver per so mo ca",
    ),
    (
        "и в не на я что тот быть с а весь это как она по но они к у ты из мы за вы так же от сказать этот который \
         мочь человек о один еще бы такой только себя свое какой когда уже для вот кто да говорить год знать мой до \
         или если время рука нет самый ни стать большой даже другой наш свой ну под где дело есть сам раз чтобы два \
         там чем глаз жизнь первый день тут ничто потом очень хотеть ли при голова надо без видеть идти теперь тоже \
         стоять друг дом",
        "по при ста ко ра ни ва то ре на ни е ло ска ти ми те пе",
    ),
    (
        "και το να του η της με που την από για τα είναι των σε ο οι στο θα τη στην τον τους δεν τις ένα μια ότι ή \
         στη στα μας αυτό μου αλλά έχει κατά όπως μετά στον πολύ αν σας πρέπει μπορεί ήταν όμως σου κι έχουν πιο μόνο \
         όλα πριν δύο χρόνια σήμερα καλημέρα ευχαριστώ",
        "κα το μα ρι ση πα λο νι τα με δι ξε που κου θη γρα φι",
    ),
];

/// Lines, of which mails take their texts.
pub(super) struct Pool {
    /// One for each language or file, lines with their ends.
    texts: Vec<Vec<Vec<u8>>>,
}

impl Pool {
    /// Lines of our own languages.
    pub(super) fn of_languages() -> Self {
        let mut random = StdRng::seed_from_u64(1);
        Self { texts: LANGUAGES.iter().map(|(common, syllables)| lines(&mut random, common, syllables)).collect() }
    }

    /// The lines of every file in a folder.
    ///
    /// # Errors
    /// When it cannot be read, or holds no text.
    pub(super) fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let (mut texts, mut read) = (Vec::new(), 0);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let lines = fold(&String::from_utf8_lossy(&text));
            if !lines.is_empty() {
                texts.push(lines);
            }
            read += text.len();
            if read > CORPORA_MOST {
                break;
            }
        }
        if texts.is_empty() {
            bail!("{} holds no text", folder.display());
        }
        Ok(Self { texts })
    }

    /// Lines of one language, `size` bytes and up to a line more.
    pub(super) fn take(&self, random: &mut StdRng, size: usize) -> Vec<u8> {
        let text = &self.texts[random.random_range(0..self.texts.len())];
        let from = random.random_range(0..text.len());
        let mut taken = Vec::with_capacity(size + LINE + 2);
        for line in text.iter().cycle().skip(from) {
            if taken.len() >= size {
                break;
            }
            taken.extend_from_slice(line);
        }
        taken
    }

    /// Some words for a subject, ASCII only: a header needs no encoding then.
    pub(super) fn subject(&self, random: &mut StdRng) -> String {
        let text = &self.texts[0];
        let line = String::from_utf8_lossy(&text[random.random_range(0..text.len())]).into_owned();
        let plain: String = line.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').take(40).collect();
        plain.trim().to_owned()
    }
}

fn lines(random: &mut StdRng, common: &str, syllables: &str) -> Vec<Vec<u8>> {
    let syllables: Vec<&str> = syllables.split(' ').collect();
    let mut words: Vec<String> = common.split(' ').map(str::to_owned).collect();
    while words.len() < VOCABULARY {
        let count = random.random_range(2..=4);
        words.push((0..count).map(|_| syllables[random.random_range(0..syllables.len())]).collect());
    }
    // Mandelbrot's form of Zipf's law: the commonest words are a little less common than by Zipf's own.
    let weights = (0..words.len()).map(|rank| 1.0 / (rank as f64 + 2.7));
    let sums: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let all = sums.last().copied().unwrap_or(1.0);
    let (mut text, mut left, mut capital) = (String::with_capacity(POOL + 100), 0, true);
    while text.len() < POOL {
        let drawn = random.random_range(0.0..all);
        let word = &words[sums.partition_point(|sum| *sum < drawn).min(words.len() - 1)];
        if left == 0 {
            left = random.random_range(4..20);
            capital = true;
        }
        let mut letters = word.chars();
        let first =
            letters.next().map(|first| if capital { first.to_uppercase().collect() } else { first.to_string() });
        text.push_str(&first.unwrap_or_default());
        text.push_str(letters.as_str());
        (capital, left) = (false, left - 1);
        text.push_str(if left == 0 { ". " } else { " " });
        if left == 0 && random.random_bool(0.15) {
            text.push_str("\n\n");
        }
    }
    fold(&text)
}

/// The words in lines of bearable length; an empty line stays one.
fn fold(text: &str) -> Vec<Vec<u8>> {
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    for paragraph in text.split('\n') {
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > LINE {
                line.extend_from_slice(b"\r\n");
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(b' ');
            }
            // A word that is longer than a line may be is none.
            line.extend_from_slice(word.as_bytes().get(..900).unwrap_or(word.as_bytes()));
        }
        if !line.is_empty() || paragraph.is_empty() {
            line.extend_from_slice(b"\r\n");
            lines.push(std::mem::take(&mut line));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn words_are_as_frequent_as_those_of_people() {
        let pool = Pool::of_languages();
        let text = pool.texts[0].concat();
        let text = String::from_utf8_lossy(&text).to_lowercase();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
        words.for_each(|word| *counts.entry(word).or_default() += 1);
        let all: usize = counts.values().sum();
        let share = counts["the"] as f64 / all as f64;
        assert!((0.03..0.08).contains(&share), "{share}");
        assert!(counts.len() > 2000, "{}", counts.len());
        assert!(counts["the"] > 5 * counts["people"]);
    }

    #[test]
    fn lines_are_short_and_whole() {
        let pool = Pool::of_languages();
        let mut random = StdRng::seed_from_u64(5);
        for size in [1, 500, 100_000] {
            let text = pool.take(&mut random, size);
            assert!((size..size + 80).contains(&text.len()), "{} for {size}", text.len());
            assert!(text.ends_with(b"\r\n"));
            assert!(String::from_utf8_lossy(&text).split("\r\n").all(|line| line.len() <= LINE));
            assert!(!text.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'));
        }
    }
}
