//! The fuzz targets over their corpora, and over corpora that a few mutations make of them: on a stable toolchain, so that what
//! the fuzzer once found stays found.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

#[test]
fn every_corpus_passes_its_target() {
    for (name, target) in targets::ALL {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "tests/fuzz/corpus/{name} is empty");
        inputs.iter().for_each(|input| target(input));
    }
}

#[test]
fn mutated_corpora_pass_their_targets() {
    for (name, target) in targets::ALL {
        let inputs = corpus(name);
        // A fixed seed: a failure is the same one next time.
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..ROUNDS {
            let mut input = inputs.choose(&mut random).unwrap().clone();
            for _ in 0..random.random_range(1..4) {
                mutate(&mut input, &inputs, &mut random);
            }
            target(&input);
        }
    }
}

#[test]
fn every_target_has_its_binary_and_its_corpus() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (name, _) in targets::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in tests/fuzz/Cargo.toml");
        assert!(root().join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name} has no binary");
    }
    let folders = fs::read_dir(root().join("corpus")).unwrap().count();
    assert_eq!(folders, targets::ALL.len(), "a corpus without a target");
}

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    match random.random_range(0..5) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 => input.insert(at, *b"\r\n :,=.\"\\{}[]%\0\xff".choose(random).unwrap()),
        2 if at < input.len() => drop(input.remove(at)),
        3 => input.truncate(at),
        _ => {
            let other = others.choose(random).unwrap();
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

const ROUNDS: usize = 3000;
