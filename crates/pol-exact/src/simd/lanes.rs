//! What a kernel needs of an instruction set.

/// A virtual vector of [`WIDTH`](super::WIDTH) binary32 values, or of the first half of one: of 8, where no more
/// are wanted.
///
/// # Safety
/// The methods are unsafe to call because an implementation may use instructions that the processor
/// lacks: the caller has to be compiled for, and run on, a processor that has them.
pub(super) trait Lanes: Copy {
    /// How many of these the register file holds.
    const REGISTERS: usize;

    /// Zero in every lane.
    unsafe fn zero() -> Self;

    /// `value` in every lane.
    unsafe fn splat(value: f32) -> Self;

    /// Reads 16 values, or 8; `from` need not be aligned.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes 16 values, or 8; `to` need not be aligned.
    unsafe fn store(self, to: *mut f32);

    /// `a·b + self`: two roundings, or one if `FUSED`.
    unsafe fn plus_product<const FUSED: bool>(self, a: Self, b: Self) -> Self;

    /// `self + b`.
    unsafe fn plus(self, b: Self) -> Self;

    /// `self − b`.
    unsafe fn minus(self, b: Self) -> Self;

    /// `−self`: the sign turned.
    unsafe fn negative(self) -> Self;
}
