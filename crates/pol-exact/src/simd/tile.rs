//! The two inner loops of training: outputs as sums of products, and sums of outer products.

use std::mem::MaybeUninit;

use super::WIDTH;
use super::butterfly::load_some;
use super::isa::{Isa, Set};
use super::lanes::Lanes;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx2Half, Avx512};

/// Channels for which half of a virtual vector suffices.
#[cfg(target_arch = "x86_64")]
const HALF: usize = WIDTH / 2;

/// Consecutive inputs of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Where the first input is, counted from the output's first input.
    pub(crate) input: usize,
    /// The row of the packed weights that belongs to the first.
    pub(crate) weight: usize,
    /// How many.
    pub(crate) len: usize,
}

/// `rows × columns` output pixels, each of `channels` sums over the same runs.
///
/// `out[r, c, o] = Σ over runs, then over i < len, of x[r, c, run.input + i] · w[run.weight + i, o]`,
/// from +0, one product after the other.
pub(crate) struct Convolution<'a> {
    /// Inputs; the first input of pixel `(r, c)` is at `r · row_step + c · column_step`.
    pub(crate) x: &'a [f32],
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
    /// In ascending order of summation.
    pub(crate) runs: &'a [Run],
    /// `[⌈channels / 16⌉, depth, 16]`, the last group filled up with anything finite.
    pub(crate) weights: &'a [f32],
    /// From the weights of one row of pixels to those of the next; 0 if all have the same.
    pub(crate) weights_step: usize,
    pub(crate) depth: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) channels: usize,
    /// Pixel `(r, c)` starts at `r · out_row_step + c · out_column_step`.
    pub(crate) out_row_step: usize,
    pub(crate) out_column_step: usize,
    /// Whether fused sums get their end, `+ (+0)`; others need none (NUMERICS.md, "Zeros").
    pub(crate) ends: bool,
}

/// Products of a sum that are added at a time, about: the weights of two groups of channels then stay in a core's
/// nearest memory for all pixels of a row.
const DEPTH: usize = 128;

/// Parts of a sum, in order: all runs, or pieces of runs where there is more than [`DEPTH`].
fn pieces(runs: &[Run]) -> Vec<Vec<Run>> {
    if runs.iter().map(|run| run.len).sum::<usize>() <= DEPTH {
        return vec![runs.to_vec()];
    }
    let pieces_of = |run: &Run| {
        let (run, len) = (
            *run,
            run.len.div_ceil(run.len.div_ceil(DEPTH).max(1)).max(1),
        );
        (0..run.len).step_by(len).map(move |first| {
            vec![Run {
                input: run.input + first,
                weight: run.weight + first,
                len: len.min(run.len - first),
            }]
        })
    };
    runs.iter().flat_map(pieces_of).collect()
}

/// Computes a [`Convolution`] into `out`.
///
/// # Panics
/// If an index would lie outside of its slice.
pub(crate) fn convolve(isa: Isa, fused: bool, job: &Convolution<'_>, out: &mut [f32]) {
    if job.rows == 0 || job.columns == 0 || job.channels == 0 {
        return;
    }
    let groups = job.channels.div_ceil(WIDTH);
    let last_weights = (job.rows - 1) * job.weights_step;
    assert!(
        job.weights.len() >= last_weights + groups * job.depth * WIDTH,
        "weights"
    );
    let last_pixel = (job.rows - 1) * job.row_step + (job.columns - 1) * job.column_step;
    for run in job.runs {
        assert!(run.weight + run.len <= job.depth, "rows of weights");
        assert!(last_pixel + run.input + run.len <= job.x.len(), "inputs");
    }
    let last_out = (job.rows - 1) * job.out_row_step + (job.columns - 1) * job.out_column_step;
    assert!(last_out + job.channels <= out.len(), "outputs");
    // Inside of the runs.
    let pieces = &pieces(job.runs);
    match isa.0 {
        // SAFETY: the bounds were checked, and an `Isa` exists only on a processor that has it.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { convolve_avx512(fused, job, pieces, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { convolve_avx2(fused, job, pieces, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Set::Neon => unsafe { convolve_with::<Neon>(fused, job, pieces, out) },
        // SAFETY: the bounds were checked.
        Set::Portable => unsafe { convolve_with::<Portable>(fused, job, pieces, out) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
fn convolve_avx512(fused: bool, job: &Convolution<'_>, pieces: &[Vec<Run>], out: &mut [f32]) {
    if job.channels <= HALF {
        return convolve_avx2(fused, job, pieces, out);
    }
    // SAFETY: `convolve` checked the bounds; this is compiled for the instructions.
    unsafe { convolve_with::<Avx512>(fused, job, pieces, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn convolve_avx2(fused: bool, job: &Convolution<'_>, pieces: &[Vec<Run>], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe {
        match job.channels <= HALF {
            true => convolve_with::<Avx2Half>(fused, job, pieces, out),
            false => convolve_with::<Avx2>(fused, job, pieces, out),
        }
    }
}

/// # Safety
/// Bounds as checked by [`convolve`]; the instructions of `L`.
#[inline(always)]
unsafe fn convolve_with<L: Lanes>(
    fused: bool,
    job: &Convolution<'_>,
    pieces: &[Vec<Run>],
    out: &mut [f32],
) {
    // SAFETY: handed on.
    unsafe {
        if fused {
            convolve_steps::<L, true>(job, pieces, out)
        } else {
            convolve_steps::<L, false>(job, pieces, out)
        }
    }
}

/// Column steps of the networks here are compiled in: the addresses of a tile's pixels are then
/// constants of the instructions instead of registers. 0 stands for any other.
///
/// # Safety
/// As [`convolve_with`].
#[inline(always)]
unsafe fn convolve_steps<L: Lanes, const FUSED: bool>(
    job: &Convolution<'_>,
    pieces: &[Vec<Run>],
    out: &mut [f32],
) {
    // SAFETY: handed on.
    unsafe {
        match job.column_step {
            16 => convolve_rows::<L, FUSED, 16>(job, pieces, out),
            32 => convolve_rows::<L, FUSED, 32>(job, pieces, out),
            64 => convolve_rows::<L, FUSED, 64>(job, pieces, out),
            _ => convolve_rows::<L, FUSED, 0>(job, pieces, out),
        }
    }
}

/// # Safety
/// As [`convolve_with`].
#[inline(always)]
unsafe fn convolve_rows<L: Lanes, const FUSED: bool, const STEP: usize>(
    job: &Convolution<'_>,
    pieces: &[Vec<Run>],
    out: &mut [f32],
) {
    let groups = job.channels.div_ceil(WIDTH);
    for row in 0..job.rows {
        let mut group = 0;
        while group < groups {
            let pair = group + 2 <= groups;
            for (index, runs) in pieces.iter().enumerate() {
                let part = Part {
                    runs,
                    is_first: index == 0,
                    is_last: index + 1 == pieces.len(),
                };
                // SAFETY: handed on; there are these groups.
                unsafe { convolve_row::<L, FUSED, STEP>(job, part, out, (row, group, pair)) };
            }
            group += if pair { 2 } else { 1 };
        }
    }
}

/// A part of the sums.
#[derive(Clone, Copy)]
struct Part<'a> {
    runs: &'a [Run],
    /// Whether the sums begin with +0, rather than with what is in the output.
    is_first: bool,
    /// Whether nothing follows.
    is_last: bool,
}

/// # Safety
/// As [`convolve_with`]; there is such a group, and one more if it is a pair.
#[inline(always)]
unsafe fn convolve_row<L: Lanes, const FUSED: bool, const STEP: usize>(
    job: &Convolution<'_>,
    part: Part<'_>,
    out: &mut [f32],
    (row, group, pair): (usize, usize, bool),
) {
    let mut column = 0;
    while column < job.columns {
        let left = job.columns - column;
        let at = (row, column, group);
        // SAFETY: handed on; a tile stays inside rows, columns and groups.
        column += unsafe {
            match (L::REGISTERS >= 32, pair) {
                (true, true) if left >= 8 => tile::<L, FUSED, STEP, 8, 2>(job, part, out, at),
                (true, false) if left >= 16 => tile::<L, FUSED, STEP, 16, 1>(job, part, out, at),
                (true, false) if left >= 8 => tile::<L, FUSED, STEP, 8, 1>(job, part, out, at),
                (false, false) if left >= 8 && L::REGISTERS >= 16 => {
                    tile::<L, FUSED, STEP, 8, 1>(job, part, out, at)
                }
                (_, false) if left >= 4 => tile::<L, FUSED, STEP, 4, 1>(job, part, out, at),
                (_, false) if left >= 2 => tile::<L, FUSED, STEP, 2, 1>(job, part, out, at),
                (_, true) if left >= 2 => tile::<L, FUSED, STEP, 2, 2>(job, part, out, at),
                (_, true) => tile::<L, FUSED, STEP, 1, 2>(job, part, out, at),
                (_, false) => tile::<L, FUSED, STEP, 1, 1>(job, part, out, at),
            }
        };
    }
}

/// `P` pixels by `V` groups of channels, all sums in registers. Returns `P`.
///
/// # Safety
/// As [`convolve_with`]; `P` columns from `column` and `V` groups from `group` exist.
#[inline(always)]
unsafe fn tile<L: Lanes, const FUSED: bool, const STEP: usize, const P: usize, const V: usize>(
    job: &Convolution<'_>,
    part: Part<'_>,
    out: &mut [f32],
    (row, column, group): (usize, usize, usize),
) -> usize {
    let step = if STEP == 0 { job.column_step } else { STEP };
    // SAFETY: `convolve` checked the last address of every kind; the instructions are the caller's.
    unsafe {
        let mut sums = [[L::zero(); V]; P];
        let x = job.x.as_ptr().add(row * job.row_step + column * step);
        let first = row * job.weights_step + group * job.depth * WIDTH;
        let w = job.weights.as_ptr().add(first);
        let out = out.as_mut_ptr().add(row * job.out_row_step);
        if !part.is_first {
            each!(p < P => {
                let out = out.add((column + p) * job.out_column_step);
                each!(v < V => {
                    let first = (group + v) * WIDTH;
                    sums[p][v] = load_some(out.add(first), job.channels - first);
                });
            });
        }
        for run in part.runs {
            let mut x = x.add(run.input);
            let mut w = w.add(run.weight * WIDTH);
            for _ in 0..run.len {
                let mut weights = [L::zero(); V];
                each!(v < V => { weights[v] = L::load(w.add(v * job.depth * WIDTH)); });
                each!(p < P => {
                    let input = L::splat(*x.add(p * step));
                    each!(v < V => {
                        sums[p][v] = sums[p][v].plus_product::<FUSED>(input, weights[v]);
                    });
                });
                x = x.add(1);
                w = w.add(WIDTH);
            }
        }
        each!(p < P => {
            let out = out.add((column + p) * job.out_column_step);
            each!(v < V => {
                let first = (group + v) * WIDTH;
                let mut sum = sums[p][v];
                if FUSED && job.ends && part.is_last {
                    sum = sum.plus(L::zero());
                }
                store_some(sum, out.add(first), job.channels - first);
            });
        });
    }
    P
}

/// Writes the first `count` lanes, or all.
///
/// # Safety
/// `min(count, 16)` values are writable; the instructions of `L`.
#[inline(always)]
unsafe fn store_some<L: Lanes>(lanes: L, to: *mut f32, count: usize) {
    // SAFETY: handed on; the buffer has 16 values.
    unsafe {
        if count >= WIDTH {
            lanes.store(to);
        } else {
            let mut all = [0.0; WIDTH];
            lanes.store(all.as_mut_ptr());
            to.copy_from_nonoverlapping(all.as_ptr(), count);
        }
    }
}

/// Sums of outer products of inputs and output gradients, pixel after pixel:
/// `sums[i, o] += x[r, c, i] · g[r, c, o]` for `r` then `c` ascending.
///
/// Or, as a tree, each row such a sum from +0, and `sums` the tree of the rows' (NUMERICS.md, "Sums").
pub(crate) struct Outer<'a> {
    /// The first input of pixel `(r, c)` is at `r · row_step + c · column_step`.
    pub(crate) x: &'a [f32],
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
    /// Inputs of a pixel.
    pub(crate) inputs: usize,
    /// `[rows, columns, groups · 16]`.
    pub(crate) gradient: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Columns of the last row: at least one, at most as many as the others have.
    pub(crate) last_columns: usize,
    /// Groups of 16 channels.
    pub(crate) groups: usize,
    /// The channels that are wanted; what the sums of the others become is not defined.
    pub(crate) channels: usize,
    /// Whether the rows' sums are a tree.
    pub(crate) tree: bool,
}

/// Trees of fewer rows than 2^LEVELS.
const LEVELS: usize = 16;

/// Computes an [`Outer`] onto `sums`, `[inputs, groups · 16]`.
///
/// # Panics
/// If an index would lie outside of its slice.
pub(crate) fn accumulate_outer(isa: Isa, fused: bool, job: &Outer<'_>, sums: &mut [f32]) {
    let channels = job.groups * WIDTH;
    assert!(job.channels.div_ceil(WIDTH) == job.groups, "groups");
    if job.rows == 0 || job.columns == 0 || job.inputs == 0 {
        return;
    }
    assert!(sums.len() >= job.inputs * channels, "sums");
    assert!((1..=job.columns).contains(&job.last_columns), "columns");
    let pixels = (job.rows - 1) * job.columns + job.last_columns;
    assert!(job.gradient.len() >= pixels * channels, "gradient");
    // The last pixel of the last row, and of a row before it.
    let last = (job.rows - 1) * job.row_step + (job.last_columns - 1) * job.column_step;
    let before = match job.rows {
        1 => 0,
        rows => (rows - 2) * job.row_step + (job.columns - 1) * job.column_step,
    };
    assert!(last.max(before) + job.inputs <= job.x.len(), "inputs");
    assert!(!job.tree || job.rows < 1 << LEVELS, "rows of a tree");
    match isa.0 {
        // SAFETY: the bounds were checked, and an `Isa` exists only on a processor that has it.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { outer_avx512(fused, job, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { outer_avx2(fused, job, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Set::Neon => unsafe { outer_with::<Neon>(fused, job, sums) },
        // SAFETY: the bounds were checked.
        Set::Portable => unsafe { outer_with::<Portable>(fused, job, sums) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
fn outer_avx512(fused: bool, job: &Outer<'_>, sums: &mut [f32]) {
    if job.channels <= HALF {
        return outer_avx2(fused, job, sums);
    }
    // SAFETY: `accumulate_outer` checked the bounds; this is compiled for the instructions.
    unsafe { outer_with::<Avx512>(fused, job, sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn outer_avx2(fused: bool, job: &Outer<'_>, sums: &mut [f32]) {
    // SAFETY: as above. Channels that are not wanted fill up the last group.
    unsafe {
        match job.channels <= HALF {
            true => outer_with::<Avx2Half>(fused, job, sums),
            false => outer_with::<Avx2>(fused, job, sums),
        }
    }
}

/// # Safety
/// Bounds as checked by [`accumulate_outer`]; the instructions of `L`.
#[inline(always)]
unsafe fn outer_with<L: Lanes>(fused: bool, job: &Outer<'_>, sums: &mut [f32]) {
    // SAFETY: handed on.
    unsafe {
        match (fused, job.tree) {
            (false, false) => outer_tiles::<L, false, false>(job, sums),
            (false, true) => outer_tiles::<L, false, true>(job, sums),
            (true, false) => outer_tiles::<L, true, false>(job, sums),
            (true, true) => outer_tiles::<L, true, true>(job, sums),
        }
    }
}

/// # Safety
/// As [`outer_with`].
#[inline(always)]
unsafe fn outer_tiles<L: Lanes, const FUSED: bool, const TREE: bool>(
    job: &Outer<'_>,
    sums: &mut [f32],
) {
    let mut group = 0;
    while group < job.groups {
        let pair = group + 2 <= job.groups;
        let mut input = 0;
        while input < job.inputs {
            let left = job.inputs - input;
            let at = (input, group);
            // SAFETY: handed on; a tile stays inside inputs and groups.
            input += unsafe {
                match (L::REGISTERS >= 32, pair) {
                    (true, true) if left >= 12 => {
                        outer_tile::<L, FUSED, TREE, 12, 2>(job, sums, at)
                    }
                    (true, false) if left >= 24 => {
                        outer_tile::<L, FUSED, TREE, 24, 1>(job, sums, at)
                    }
                    (true, false) if left >= 8 => outer_tile::<L, FUSED, TREE, 8, 1>(job, sums, at),
                    (false, false) if left >= 8 && L::REGISTERS >= 16 => {
                        outer_tile::<L, FUSED, TREE, 8, 1>(job, sums, at)
                    }
                    (_, false) if left >= 4 => outer_tile::<L, FUSED, TREE, 4, 1>(job, sums, at),
                    (_, false) if left >= 2 => outer_tile::<L, FUSED, TREE, 2, 1>(job, sums, at),
                    (_, true) if left >= 2 => outer_tile::<L, FUSED, TREE, 2, 2>(job, sums, at),
                    (_, true) => outer_tile::<L, FUSED, TREE, 1, 2>(job, sums, at),
                    (_, false) => outer_tile::<L, FUSED, TREE, 1, 1>(job, sums, at),
                }
            };
        }
        group += if pair { 2 } else { 1 };
    }
}

/// `J` inputs by `V` groups of channels, all sums in registers. Returns `J`.
///
/// # Safety
/// As [`outer_with`]; `J` inputs from `input` and `V` groups from `group` exist.
#[inline(always)]
unsafe fn outer_tile<
    L: Lanes,
    const FUSED: bool,
    const TREE: bool,
    const J: usize,
    const V: usize,
>(
    job: &Outer<'_>,
    sums: &mut [f32],
    (input, group): (usize, usize),
) -> usize {
    let channels = job.groups * WIDTH;
    // SAFETY: `accumulate_outer` checked the last address of every kind; the instructions are the
    // caller's.
    unsafe {
        let stored = sums.as_mut_ptr().add(input * channels + group * WIDTH);
        let mut sums = [[L::zero(); V]; J];
        if !TREE {
            each!(j < J => {
                each!(v < V => { sums[j][v] = L::load(stored.add(j * channels + v * WIDTH)); });
            });
        }
        // A binary counter: level i is the sum of 2^i rows.
        let mut levels = [const { MaybeUninit::<[[L; V]; J]>::uninit() }; LEVELS];
        let mut gradient = job.gradient.as_ptr().add(group * WIDTH);
        for row in 0..job.rows {
            if TREE {
                each!(j < J => {
                    each!(v < V => { sums[j][v] = L::zero(); });
                });
            }
            let is_last = row + 1 == job.rows;
            let columns = if is_last {
                job.last_columns
            } else {
                job.columns
            };
            let mut x = job.x.as_ptr().add(row * job.row_step + input);
            for column in 0..columns {
                let mut pixel = [L::zero(); V];
                each!(v < V => { pixel[v] = L::load(gradient.add(v * WIDTH)); });
                each!(j < J => {
                    let input = L::splat(*x.add(j));
                    each!(v < V => {
                        sums[j][v] = sums[j][v].plus_product::<FUSED>(input, pixel[v]);
                    });
                });
                gradient = gradient.wrapping_add(channels);
                if column + 1 < columns {
                    x = x.add(job.column_step);
                }
            }
            if TREE {
                // A level is there if its bit in the number of rows before this one is set. The last
                // row meets all of them, another those that it fills up.
                let mut level = 0;
                while row >> level != 0 {
                    if row >> level & 1 == 1 {
                        let left = levels[level].as_ptr().cast::<L>();
                        each!(j < J => {
                            each!(v < V => { sums[j][v] = (*left.add(j * V + v)).plus(sums[j][v]); });
                        });
                    } else if !is_last {
                        break;
                    }
                    level += 1;
                }
                if !is_last {
                    let to = levels[level].as_mut_ptr().cast::<L>();
                    each!(j < J => {
                        each!(v < V => { to.add(j * V + v).write(sums[j][v]); });
                    });
                }
            }
        }
        each!(j < J => {
            each!(v < V => { sums[j][v].store(stored.add(j * channels + v * WIDTH)); });
        });
    }
    J
}
