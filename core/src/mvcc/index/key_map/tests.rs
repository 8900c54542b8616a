//! The map against an ordinary one, through splits, joins and whole runs of keys.

use alloc::{format, vec};
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Insert(Vec<u8>),
    /// So many keys that follow each other.
    Run(u16, u16),
    Remove(u16),
    /// So many entries from a place on, as a compaction finds them dead.
    RemoveRun(u16, u16),
    Change(u16),
    WorkIn(Vec<Vec<u8>>),
}

/// Keys in families: few letters, long beginnings in common, now and then a large one.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let family = prop_oneof![Just(""), Just("a"), Just("/registry/pods/"), Just("/registry/pods/default/"), Just("z")];
    let rest = prop_oneof![
        20 => prop::collection::vec(b'a'..=b'e', 0..5),
        1 => (b'a'..=b'c', 1_usize..20_000).prop_map(|(letter, length)| vec![letter; length]),
    ];
    (family, rest).prop_map(|(family, rest)| [family.as_bytes(), &rest].concat())
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => key().prop_map(Act::Insert),
        2 => (any::<u16>(), 1_u16..300).prop_map(|(from, length)| Act::Run(from, length)),
        8 => any::<u16>().prop_map(Act::Remove),
        2 => (any::<u16>(), 1_u16..200).prop_map(|(from, length)| Act::RemoveRun(from, length)),
        2 => any::<u16>().prop_map(Act::Change),
        2 => prop::collection::vec(key(), 0..200).prop_map(Act::WorkIn),
    ]
}

fn play(act: Act, map: &mut KeyMap<u64>, twin: &mut BTreeMap<Vec<u8>, u64>, number: u64) {
    let nth =
        |twin: &BTreeMap<Vec<u8>, u64>, place: u16| twin.keys().nth(usize::from(place) % twin.len().max(1)).cloned();
    let insert = |key: Vec<u8>, map: &mut KeyMap<u64>, twin: &mut BTreeMap<_, _>| {
        if twin.insert(key.clone(), number).is_none() {
            map.insert(&key, number);
        } else {
            *map.get_mut(&key).unwrap() = number;
        }
    };
    match act {
        Act::Insert(key) => insert(key, map, twin),
        Act::Run(from, length) => {
            for each in from..=from.saturating_add(length) {
                insert(format!("/registry/pods/{each:05}").into_bytes(), map, twin);
            }
        }
        Act::Remove(place) => {
            let Some(key) = nth(twin, place) else { return };
            assert_eq!(map.remove(&key), twin.remove(&key));
            assert_eq!(map.remove(&key), None);
        }
        Act::RemoveRun(place, length) => {
            for _ in 0..length {
                let Some(key) = nth(twin, place) else { return };
                assert_eq!(map.remove(&key), twin.remove(&key));
            }
        }
        Act::Change(place) => {
            let Some(start) = nth(twin, place) else { return };
            let (mut seen, mut changed) = (0, 0);
            map.walk_mut(Bound::Excluded(&start), |_, value| {
                seen += 1;
                *value += 1;
                if seen == 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            for (_, value) in twin.range_mut((Bound::Excluded(start), Bound::Unbounded)).take(100) {
                *value += 1;
                changed += 1;
            }
            assert_eq!(seen, changed);
        }
        Act::WorkIn(mut keys) => {
            keys.sort();
            keys.dedup();
            let done: Result<(), ()> =
                map.work_in(keys.iter().map(|key| (key.as_slice(), number)), |known, number| match known {
                    Some(value) => {
                        *value += number;
                        Ok(None)
                    }
                    None => Ok(Some(number)),
                });
            done.unwrap();
            for key in keys {
                twin.entry(key).and_modify(|value| *value += number).or_insert(number);
            }
        }
    }
}

/// What the map promises of its leaves.
fn check_leaves(map: &KeyMap<u64>) {
    let mut before: Option<Vec<u8>> = None;
    for (bound, leaf) in &map.leaves {
        let (first, last) = (leaf.key(0).to_vec(), leaf.key(leaf.len() - 1).to_vec());
        assert!(**bound <= *first && before.is_none_or(|before| *before < **bound), "bounds part the leaves");
        assert!(leaf.len() <= LEN_MAX, "a leaf is small");
        // Before it is cut, one insertion may have undone what its keys shared.
        assert!(leaf.len() == 1 || leaf.bytes() <= LEN_MAX * BYTES_MAX, "{} bytes in a leaf", leaf.bytes());
        before = Some(last);
    }
}

fn walked(map: &KeyMap<u64>, bounds: Bounds<'_>) -> Vec<(Vec<u8>, u64)> {
    let mut entries = Vec::new();
    map.walk(bounds, |key, value| {
        entries.push((key.to_vec(), *value));
        ControlFlow::Continue(())
    });
    entries
}

fn bound(key: &[u8], kind: u8) -> Bound<&[u8]> {
    match kind {
        0 => Bound::Unbounded,
        1 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

fn is_within(key: &[u8], (start, end): Bounds<'_>) -> bool {
    let is_after = match start {
        Bound::Unbounded => true,
        Bound::Included(start) => start <= key,
        Bound::Excluded(start) => start < key,
    };
    is_after
        && match end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn map_is_an_ordinary_one(
        acts in prop::collection::vec(act(), 1..150),
        asked in prop::collection::vec((key(), key(), 0_u8..3, 0_u8..3), 10),
    ) {
        let (mut map, mut twin) = (KeyMap::default(), BTreeMap::new());
        for (act, number) in acts.into_iter().zip(1..) {
            play(act, &mut map, &mut twin, number);
            check_leaves(&map);
            prop_assert_eq!(map.len(), twin.len());
        }
        let all: Vec<(Vec<u8>, u64)> = twin.iter().map(|(key, value)| (key.clone(), *value)).collect();
        prop_assert_eq!(&walked(&map, (Bound::Unbounded, Bound::Unbounded)), &all);
        for (a, b, start, end) in asked {
            prop_assert_eq!(map.get(&a), twin.get(&a));
            let bounds = (bound(&a, start), bound(&b, end));
            let within: Vec<_> = all.iter().filter(|(key, _)| is_within(key, bounds)).cloned().collect();
            prop_assert_eq!(walked(&map, bounds), within);
        }
        // However it was cut into leaves.
        let mut again = KeyMap::default();
        let done: Result<(), ()> = again.work_in(all.iter().map(|(key, value)| (key.as_slice(), *value)), |_, value| Ok(Some(value)));
        done.unwrap();
        prop_assert_eq!(again, map);
    }
}

#[test]
fn keys_in_order_fill_their_leaves() {
    let mut map = KeyMap::default();
    for number in 0..10_000 {
        map.insert(format!("/registry/events/{number:08}").as_bytes(), number);
    }
    assert_eq!(map.leaves.len(), 10_000_usize.div_ceil(LEN_MAX));
    let bytes: usize = map.leaves.values().map(Leaf::bytes).sum();
    assert!(bytes < 10_000 * 4, "{bytes} bytes: what keys share is there once for each leaf");
}

#[test]
fn few_of_many_are_joined() {
    let mut map = KeyMap::default();
    for number in 0..10_000_u64 {
        map.insert(&number.to_be_bytes(), number);
    }
    for number in (0..10_000_u64).filter(|number| number % 100 != 0) {
        map.remove(&number.to_be_bytes());
    }
    assert_eq!(map.len(), 100);
    assert!(map.leaves.len() <= 10, "{} leaves for 100 keys", map.leaves.len());
}

#[test]
fn a_large_key_leaves_no_room_behind() {
    let mut map = KeyMap::default();
    for number in 0..24 {
        map.insert(format!("a{number:03}").as_bytes(), number);
        map.insert(format!("z{number:03}").as_bytes(), number);
    }
    let large = vec![b'k'; 1 << 20];
    map.insert(&large, 0);
    map.remove(&large);
    let room: usize = map.leaves.values().map(Leaf::room).sum();
    assert!(room < 4_096, "{room} bytes of room for a few small keys");
}
