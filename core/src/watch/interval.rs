//! Ranges of keys by what they contain: an AVL tree ordered by start and end, where each node knows the furthest end below it.
//!
//! Asking who contains a key costs the depth of the tree plus the answers, however many ranges lie elsewhere. Balanced by height and not by chance,
//! because the engine draws nothing and a client must not be able to choose a bad shape.

use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;

use crate::mvcc::span::{Span, SpanEnd};

/// A node's place; zero is none.
type Place = usize;
const NONE: Place = 0;

/// Ranges, each with a value.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Intervals {
    /// The first one is unused.
    nodes: Vec<Node>,
    free: Vec<Place>,
    root: Place,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Node {
    start: Bytes,
    end: End,
    /// The furthest end in this subtree.
    furthest: End,
    value: u64,
    left: Place,
    right: Place,
    height: u32,
}

/// Where a range ends; `Open` is beyond every key.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum End {
    Before(Bytes),
    #[default]
    Open,
}

impl Default for Intervals {
    fn default() -> Self {
        let none = Node { end: End::Before(Bytes::new()), furthest: End::Before(Bytes::new()), ..Node::default() };
        Self { nodes: [none].into(), free: Vec::new(), root: NONE }
    }
}

fn ends_of(span: &Span) -> End {
    match &span.end {
        SpanEnd::One => unreachable!("a single key is no range"),
        SpanEnd::Before(end) => End::Before(end.clone()),
        SpanEnd::Open => End::Open,
    }
}

impl Intervals {
    /// The value of exactly this range.
    #[must_use]
    pub fn get(&self, span: &Span) -> Option<u64> {
        let end = ends_of(span);
        let mut at = self.root;
        while at != NONE {
            let node = &self.nodes[at];
            at = match (&span.key, &end).cmp(&(&node.start, &node.end)) {
                Ordering::Equal => return Some(node.value),
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
            };
        }
        None
    }

    /// Adds a range that is not there yet.
    pub fn insert(&mut self, span: &Span, value: u64) {
        let end = ends_of(span);
        let node = Node { start: span.key.clone(), furthest: end.clone(), end, value, height: 1, ..Node::default() };
        let place = match self.free.pop() {
            Some(place) => {
                self.nodes[place] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.root = self.insert_at(self.root, place);
    }

    /// Removes a range that is there.
    pub fn remove(&mut self, span: &Span) {
        let end = ends_of(span);
        self.root = self.remove_at(self.root, &span.key, &end);
    }

    /// Shows the value of each range that contains `key`, in their order.
    pub fn stab(&self, key: &[u8], each: &mut impl FnMut(u64)) {
        self.stab_at(self.root, key, each);
    }

    fn stab_at(&self, at: Place, key: &[u8], each: &mut impl FnMut(u64)) {
        let node = &self.nodes[at];
        if at == NONE || !node.furthest.is_beyond(key) {
            return;
        }
        self.stab_at(node.left, key, each);
        if node.start <= key {
            if node.end.is_beyond(key) {
                each(node.value);
            }
            self.stab_at(node.right, key, each);
        }
    }

    fn insert_at(&mut self, at: Place, new: Place) -> Place {
        if at == NONE {
            return new;
        }
        match self.compare(new, at) {
            Ordering::Less => self.nodes[at].left = self.insert_at(self.nodes[at].left, new),
            Ordering::Greater => self.nodes[at].right = self.insert_at(self.nodes[at].right, new),
            Ordering::Equal => unreachable!("a range is added once"),
        }
        self.balance(at)
    }

    fn remove_at(&mut self, at: Place, start: &Bytes, end: &End) -> Place {
        assert!(at != NONE, "only a range that is there is removed");
        let Node { left, right, .. } = self.nodes[at];
        match (start, end).cmp(&(&self.nodes[at].start, &self.nodes[at].end)) {
            Ordering::Less => self.nodes[at].left = self.remove_at(left, start, end),
            Ordering::Greater => self.nodes[at].right = self.remove_at(right, start, end),
            Ordering::Equal => {
                self.nodes[at] = Node::default();
                self.free.push(at);
                if left == NONE || right == NONE {
                    return left + right;
                }
                let (rest, first) = self.take_first(right);
                (self.nodes[first].left, self.nodes[first].right) = (left, rest);
                return self.balance(first);
            }
        }
        self.balance(at)
    }

    /// Takes the first node out of a subtree: what is left, and the node.
    fn take_first(&mut self, at: Place) -> (Place, Place) {
        if self.nodes[at].left == NONE {
            return (self.nodes[at].right, at);
        }
        let (rest, first) = self.take_first(self.nodes[at].left);
        self.nodes[at].left = rest;
        (self.balance(at), first)
    }

    fn compare(&self, one: Place, other: Place) -> Ordering {
        let (one, other) = (&self.nodes[one], &self.nodes[other]);
        (&one.start, &one.end).cmp(&(&other.start, &other.end))
    }

    fn height(&self, at: Place) -> u32 {
        if at == NONE { 0 } else { self.nodes[at].height }
    }

    /// Brings a node's own knowledge up to date.
    fn update(&mut self, at: Place) {
        let Node { left, right, .. } = self.nodes[at];
        let height = 1 + self.height(left).max(self.height(right));
        let mut furthest = &self.nodes[at].end;
        for child in [left, right] {
            if child != NONE {
                furthest = furthest.max(&self.nodes[child].furthest);
            }
        }
        let furthest = furthest.clone();
        let node = &mut self.nodes[at];
        (node.height, node.furthest) = (height, furthest);
    }

    /// Restores the balance of a node whose children are balanced. Returns the root of the subtree.
    fn balance(&mut self, at: Place) -> Place {
        self.update(at);
        let Node { left, right, .. } = self.nodes[at];
        if self.height(left) > self.height(right) + 1 {
            let Node { left: outer, right: inner, .. } = self.nodes[left];
            if self.height(inner) > self.height(outer) {
                self.nodes[at].left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if self.height(right) > self.height(left) + 1 {
            let Node { left: inner, right: outer, .. } = self.nodes[right];
            if self.height(inner) > self.height(outer) {
                self.nodes[at].right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        at
    }

    fn rotate_left(&mut self, at: Place) -> Place {
        let top = self.nodes[at].right;
        self.nodes[at].right = self.nodes[top].left;
        self.nodes[top].left = at;
        self.update(at);
        self.update(top);
        top
    }

    fn rotate_right(&mut self, at: Place) -> Place {
        let top = self.nodes[at].left;
        self.nodes[at].left = self.nodes[top].right;
        self.nodes[top].right = at;
        self.update(at);
        self.update(top);
        top
    }

    /// The depth, for tests.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.height(self.root)
    }
}

impl End {
    fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }
}
