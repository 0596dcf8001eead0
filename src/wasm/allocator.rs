//! The memory of the VM. Small blocks that were given back are kept for whoever asks next.
//!
//! A request takes a handful of small blocks and gives them back a few microseconds later. The allocator of the
//! standard library joins each of them with its neighbours and parts them again, which was a quarter of what was
//! computed for a request answered with 304 when it took a dozen. Here a block comes from a list of its size and goes back there; what is
//! large, or more than a list may keep, is the standard library's as before.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;

/// Sizes differ by so many bytes.
const STEP: usize = 16;

/// Sizes that are kept: up to 512 bytes.
const SIZES: usize = 32;

/// What every kept block is aligned to, in bytes.
const ALIGNMENT: usize = 8;

/// Most blocks of one size that are kept: 270 KB when all lists are full.
const KEPT: usize = 32;

/// An allocator with lists of small blocks in front of it.
///
/// Its lists have no lock: it is for a VM, which has one thread.
pub struct SmallBlocks<A> {
    inner: A,
    lists: [Cell<List>; SIZES],
}

/// Blocks of one size.
#[derive(Clone, Copy)]
struct List {
    first: *mut Kept,
    length: usize,
}

/// A block on a list.
struct Kept {
    next: *mut Kept,
}

// SAFETY: wasm32-wasip1 has no threads. Elsewhere only tests use it, each with its own.
#[cfg(target_arch = "wasm32")]
unsafe impl<A: Sync> Sync for SmallBlocks<A> {}

impl<A> SmallBlocks<A> {
    /// Keeps nothing yet.
    pub const fn new(inner: A) -> Self {
        const EMPTY: List = List {
            first: ptr::null_mut(),
            length: 0,
        };
        Self {
            inner,
            lists: [const { Cell::new(EMPTY) }; SIZES],
        }
    }

    fn take(&self, size: usize) -> Option<*mut u8> {
        let list = self.lists.get(size)?;
        let List { first, length } = list.get();
        if first.is_null() {
            return None;
        }
        list.set(List {
            // SAFETY: a block on a list is nobody else's, and `keep` wrote this into it.
            first: unsafe { (*first).next },
            length: length.saturating_sub(1),
        });
        Some(first.cast())
    }

    /// `false` when the list is full.
    fn keep(&self, size: usize, block: *mut u8) -> bool {
        let Some(list) = self.lists.get(size) else {
            return false;
        };
        let List { first, length } = list.get();
        if length >= KEPT {
            return false;
        }
        let block = block.cast::<Kept>();
        // SAFETY: whoever gave the block back uses it no more; it has at least STEP bytes, aligned to ALIGNMENT.
        unsafe { block.write(Kept { next: first }) };
        list.set(List {
            first: block,
            length: length + 1,
        });
        true
    }
}

/// The place of a size among the lists; `None` for what is not kept.
const fn size_of(layout: Layout) -> Option<usize> {
    match layout.size() {
        bytes @ 1.. if bytes <= STEP * SIZES && layout.align() <= ALIGNMENT => {
            Some((bytes - 1) / STEP)
        }
        _ => None,
    }
}

/// What a block of this size is to the inner allocator.
const fn block_of(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and sizes are small.
    unsafe { Layout::from_size_align_unchecked((size + 1) * STEP, ALIGNMENT) }
}

// SAFETY: a block is the inner allocator's, of at least the size and alignment asked for, and at any time either on one
// list or in one hand. By its layout it goes back to where it came from.
unsafe impl<A: GlobalAlloc> GlobalAlloc for SmallBlocks<A> {
    // Not inlined: wherever something is allocated that would be a tenth of the module.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = size_of(layout) else {
            // SAFETY: as the caller's.
            return unsafe { self.inner.alloc(layout) };
        };
        self.take(size)
            // SAFETY: the size is not zero.
            .unwrap_or_else(|| unsafe { self.inner.alloc(block_of(size)) })
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match size_of(layout) {
            // SAFETY: as the caller's.
            None => unsafe { self.inner.dealloc(block, layout) },
            Some(size) if self.keep(size, block) => {}
            // SAFETY: with this layout it was allocated.
            Some(size) => unsafe { self.inner.dealloc(block, block_of(size)) },
        }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if size_of(layout).is_none() {
            // Fresh memory need not be written: the inner allocator knows.
            // SAFETY: as the caller's.
            return unsafe { self.inner.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller's.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: it has that many bytes.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller says that `bytes` is a valid size with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (size_of(layout), size_of(wanted)) {
            // SAFETY: as the caller's.
            (None, None) => unsafe { self.inner.realloc(block, layout, bytes) },
            (is, will_be) if is == will_be => block,
            _ => {
                // SAFETY: as the caller's; both blocks have that many bytes, and they are two.
                unsafe {
                    let new = self.alloc(wanted);
                    if !new.is_null() {
                        ptr::copy_nonoverlapping(block, new, layout.size().min(bytes));
                        self.dealloc(block, layout);
                    }
                    new
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::alloc::System;
    use std::cell::RefCell;
    use std::collections::HashMap;

    /// Knows what is out, and with which layout.
    #[derive(Default)]
    struct Strict(RefCell<HashMap<usize, Layout>>);

    // SAFETY: the system's allocator does the work.
    unsafe impl GlobalAlloc for Strict {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let block = unsafe { System.alloc(layout) };
            // What comes back from a list is as dirty.
            unsafe { ptr::write_bytes(block, 0xdb, layout.size()) };
            self.0.borrow_mut().insert(block as usize, layout);
            block
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            let was = self.0.borrow_mut().remove(&(block as usize));
            assert_eq!(was, Some(layout));
            unsafe { System.dealloc(block, layout) };
        }
    }

    impl Strict {
        fn bytes(&self) -> usize {
            self.0.borrow().values().map(Layout::size).sum()
        }
    }

    struct Block {
        at: *mut u8,
        layout: Layout,
        content: u8,
    }

    impl Block {
        fn fill(&self) {
            unsafe { ptr::write_bytes(self.at, self.content, self.layout.size()) };
        }

        fn holds(&self, bytes: usize) -> bool {
            let all = unsafe { std::slice::from_raw_parts(self.at, bytes) };
            all.iter().all(|byte| *byte == self.content)
        }
    }

    fn layout(bytes: usize, align: u32) -> Layout {
        Layout::from_size_align(bytes, 1 << align).unwrap()
    }

    #[test]
    fn a_block_that_was_given_back_comes_again_for_its_size_alone() {
        let memory = SmallBlocks::new(Strict::default());
        let [small, same, other] = [17, 32, 33].map(|bytes| layout(bytes, 3));
        unsafe {
            let first = memory.alloc(small);
            memory.dealloc(first, small);
            let elsewhere = memory.alloc(other);
            assert_ne!(elsewhere, first);
            assert_eq!(memory.alloc(same), first);
            assert_ne!(memory.alloc(same), first);
        }
    }

    #[test]
    fn lists_are_bounded() {
        let memory = SmallBlocks::new(Strict::default());
        for bytes in [1, 16, 17, 300, 511, 512, 513, 5_000] {
            let layout = layout(bytes, 2);
            let blocks: Vec<_> = (0..1_000)
                .map(|_| unsafe { memory.alloc(layout) })
                .collect();
            for block in blocks {
                unsafe { memory.dealloc(block, layout) };
            }
        }
        let most: usize = (1..=SIZES).map(|size| size * STEP * KEPT).sum();
        assert!(memory.inner.bytes() <= most && most < 280_000);
        assert!(memory.inner.bytes() > 0);
    }

    proptest! {
        #[test]
        fn nobody_writes_into_what_is_somebody_elses(
            steps in prop::collection::vec((0u8..5, 0usize..40, 1usize..1_200, 0u32..6), 1..400)
        ) {
            let memory = SmallBlocks::new(Strict::default());
            let mut live: Vec<Block> = Vec::new();
            for (number, (kind, which, bytes, align)) in steps.into_iter().enumerate() {
                let content = number as u8;
                let which = (which < live.len()).then_some(which);
                match (kind, which) {
                    (0 | 1, _) | (_, None) => {
                        let layout = layout(bytes, align);
                        let at = unsafe {
                            match kind {
                                1 => memory.alloc_zeroed(layout),
                                _ => memory.alloc(layout),
                            }
                        };
                        prop_assert_eq!(at as usize % layout.align(), 0);
                        if kind == 1 {
                            let zero = Block { at, layout, content: 0 };
                            prop_assert!(zero.holds(bytes));
                        }
                        live.push(Block { at, layout, content });
                    }
                    (2 | 3, Some(which)) => {
                        let block = live.swap_remove(which);
                        unsafe { memory.dealloc(block.at, block.layout) };
                        continue;
                    }
                    (_, Some(which)) => {
                        let mut block = live.swap_remove(which);
                        let kept = block.layout.size().min(bytes);
                        block.at = unsafe { memory.realloc(block.at, block.layout, bytes) };
                        block.layout = Layout::from_size_align(bytes, block.layout.align()).unwrap();
                        prop_assert_eq!(block.at as usize % block.layout.align(), 0);
                        prop_assert!(block.holds(kept));
                        block.content = content;
                        live.push(block);
                    }
                }
                live.last().unwrap().fill();
                prop_assert!(live.iter().all(|block| block.holds(block.layout.size())));
            }
            for block in live.drain(..) {
                unsafe { memory.dealloc(block.at, block.layout) };
            }
        }
    }
}
