#!/usr/bin/env python3
"""Makes `exact.json` from NUMERICS.md, SPEC.md and MODELS.md alone, without the Rust code.

What every exact operator gives in both profiles on small, odd and hard inputs, and the first states of the
default recipe. Numbers are Python's floats (binary64) that hold binary32 values. Why each operation has one rounding:
- binary64 has 53 ≥ 2·24 + 2 bits, so rounding a sum, difference, quotient or root to it first and to binary32 then
  gives what one rounding gives (Figueroa, 1995; below 2⁻¹²⁶ sums are exact, and quotients never come within 2⁻⁴⁹
  of a tie without being one), and products of two binary32 are exact in it.
- A fused multiply-add adds to that exact product, finds the error of the sum (Knuth's TwoSum), and makes the sum odd
  where there is one: from an odd last bit binary32 is rounded as from the exact sum (Boldo & Melquiond, 2008).
`check_rounding` compares all of them with exact fractions. Needs Python 3.11 or later, and its library only; takes
less than a minute. Run it in this folder; the first argument is the folder of `digits.csv.gz`.
"""
import csv
import gzip
import hashlib
import json
import math
import struct
import sys
from fractions import Fraction

# ---- Numbers (NUMERICS.md, "Numbers") --------------------------------------------------------------------------

SINGLE = struct.Struct("f")  # native: the processor's conversion, to the nearest, to infinity above the largest
pack32, unpack32 = SINGLE.pack, SINGLE.unpack


def f32(x):
    return unpack32(pack32(x))[0]


def add(x, y):
    return f32(x + y)


def sub(x, y):
    return f32(x - y)


def mul(x, y):
    return f32(x * y)


def div(x, y):
    return f32(x / y)


def root(x):
    return f32(math.sqrt(x))


def bits(x):
    return struct.unpack(">I", struct.pack(">f", x) if math.isfinite(x) else pack32(x)[::-1])[0]


def from_bits(n):
    return struct.unpack(">f", struct.pack(">I", n))[0]


def odd(total, error):
    """The neighbour of an inexact sum towards the exact one, if its own last bit is even."""
    if struct.unpack("<q", struct.pack("<d", total))[0] & 1:
        return total
    return math.nextafter(total, math.copysign(math.inf, error))


class Unfused:
    name = "unfused-v2"

    @staticmethod
    def plus(s, a, b):
        """s ⊕ a·b"""
        return f32(s + f32(a * b))

    @staticmethod
    def dot(xs, ys):
        s = 0.0
        for x, y in zip(xs, ys):
            s, = unpack32(pack32(s + unpack32(pack32(x * y))[0]))
        return s + 0.0


class Fused:
    name = "fma-v2"

    @staticmethod
    def plus(s, a, b):
        return Fused.end(s, [a], [b])

    @staticmethod
    def dot(xs, ys):
        return Fused.end(0.0, xs, ys) + 0.0

    @staticmethod
    def end(s, xs, ys):
        for x, y in zip(xs, ys):
            product = x * y
            total = s + product
            part = total - s
            error = (s - (total - part)) + (product - part)
            if error:
                total = odd(total, error)
            s, = unpack32(pack32(total))
        return s


def nearest(exact, negative_zero):
    """A fraction's nearest binary32, on ties the even one, in whole numbers only."""
    if exact == 0:
        return -0.0 if negative_zero else 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    count, rest = divmod(size, unit)
    count += rest * 2 > unit or (rest * 2 == unit and count % 2)
    value = count * unit
    value = math.inf if value >= 2 ** 128 else float(value)
    return -value if exact < 0 else value


def nearest_root(x):
    exact = Fraction(x)
    scale = 2 ** 400  # an even power: the root keeps 200 bits behind the point
    whole = math.isqrt(int(exact * scale))
    return nearest(Fraction(2 * whole + (whole * whole != exact * scale), 2 ** 201), False)


def check_rounding():
    """Compares the operations above with fractions, on draws of all sizes and on ties."""
    draws = words(99)
    special = [from_bits(w | sign) for sign in (0, 1 << 31) for w in (
        0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFF, 0x800000, 0x800001, 0x1A000000, 0x1A000001, 0x1A7FFFFF,
        0x33800000, 0x33800001, 0x337FFFFF, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FC00000, 0x4B7FFFFF, 0x4B800000,
        0x5F000000, 0x5F7FFFFF, 0x7F000000, 0x7F7FFFFF)]

    def draw(near=None):
        word = next(draws)
        if word % 4 == 0:
            return special[(word >> 8) % len(special)]
        if near is None or near == 0 or word % 4 == 1:
            return from_bits(next(draws) % 0x7F800000 | (word & 4) << 29)
        exponent = min(max((bits(near) >> 23 & 255) + next(draws) % 61 - 30, 0), 254)
        return from_bits(exponent << 23 | next(draws) & 0x7FFFFF & -1 << word % 24 | (word & 4) << 29)

    def same(got, wanted, *operands):
        assert bits(got) == bits(wanted), (got, wanted, operands)

    for _ in range(60_000):
        a = draw()
        b = draw(a)
        product = Fraction(a) * Fraction(b)
        sign = math.copysign(1, a) * math.copysign(1, b) < 0
        same(mul(a, b), nearest(product, sign), a, b)
        s = draw(mul(a, b)) if math.isfinite(mul(a, b)) else draw()
        if next(draws) % 8 == 0:  # one more than a tie, or one less, by a part of a product far below it
            s = f32(-s + float(product)) if abs(product) < 2 ** 100 else s
        zero = math.copysign(1, s) < 0 and sign
        same(Fused.plus(s, a, b), nearest(Fraction(s) + product, zero), s, a, b)
        c = draw(a)
        both_negative = math.copysign(1, a) + math.copysign(1, c) < -1
        same(add(a, c), nearest(Fraction(a) + Fraction(c), both_negative), a, c)
        same(sub(a, -c), nearest(Fraction(a) + Fraction(c), both_negative), a, c)
        if b:
            same(div(a, b), nearest(Fraction(a) / Fraction(b), sign), a, b)
        if a > 0:
            same(root(a), nearest_root(a), a)


# ---- Sums ------------------------------------------------------------------------------------------------------

def short(values):
    s = 0.0
    for value in values:
        s = add(s, value)
    return s + 0.0


def tree(sums):
    while len(sums) > 1:
        pairs = [add(a, b) for a, b in zip(sums[::2], sums[1::2])]
        sums = pairs + sums[len(pairs) * 2:]
    return sums[0]


def long(groups, block_sum):
    """`groups` are lists of blocks: those of an image, or one list of all. Trees of blocks, then of groups."""
    return tree([tree([block_sum(block) for block in group]) for group in groups])


def channel_blocks(batch, pixels):
    """Over the pixels of a channel: 4 successive pixels of an image; as indices of image · pixels + pixel."""
    return [[range(image * pixels + at, image * pixels + min(at + 4, pixels)) for at in range(0, pixels, 4)]
            for image in range(batch)]


def weight_blocks(batch, rows, columns):
    """Over the pixels of a weight: lists of (image, its rows)."""
    pixels = rows * columns
    if pixels < 512:
        count = min(512 // pixels, 8)
        return [[[(image, range(rows)) for image in range(at, min(at + count, batch))]
                 for at in range(0, batch, count)]]
    height = max(2, 2 * (256 // columns))
    return [[[(image, range(at, min(at + height, rows)))] for at in range(0, rows, height)]
            for image in range(batch)]


# ---- Tensors: nested lists -------------------------------------------------------------------------------------

def shaped(values, *shape):
    if len(shape) == 1:
        assert len(values) == shape[0]
        return list(values)
    size = math.prod(shape[1:])
    return [shaped(values[i * size:(i + 1) * size], *shape[1:]) for i in range(shape[0])]


def flat(tensor):
    return [value for part in tensor for value in flat(part)] if isinstance(tensor, list) else [tensor]


def pixel(image, row, column, channels):
    """An image's values there, or the +0 of padding."""
    inside = 0 <= row < len(image) and 0 <= column < len(image[0])
    return image[row][column] if inside else [0.0] * channels


# ---- Convolution -----------------------------------------------------------------------------------------------

class Geometry:
    def __init__(self, batch, channels_in, input, channels_out, kernel, stride, padding):
        self.batch, self.inputs, self.input, self.outputs = batch, channels_in, input, channels_out
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.output = [(i + 2 * p - k) // s + 1 for i, k, s, p in zip(input, kernel, stride, padding)]
        self.minimal = (kernel == [3, 3] and stride == [1, 1] and min(channels_in, channels_out) >= 16)


def conv2d(profile, g, x, w, bias):
    y = (minimal_output if g.minimal else direct_output)(profile, g, x, w)
    if bias is None:
        return y
    return [[[[add(value, b) for value, b in zip(at, bias)] for at in row] for row in image] for image in y]


def direct_output(profile, g, x, w):
    (kr, kc), (sr, sc), (pr, pc) = g.kernel, g.stride, g.padding
    weights = [[w[o][i][r][c] for r in range(kr) for c in range(kc) for i in range(g.inputs)]
               for o in range(g.outputs)]

    def at(image, row, column):
        seen = [value for r in range(kr) for c in range(kc)
                for value in pixel(image, row * sr + r - pr, column * sc + c - pc, g.inputs)]
        return [profile.dot(seen, of) for of in weights]

    return [[[at(image, row, column) for column in range(g.output[1])] for row in range(g.output[0])] for image in x]


def conv2d_input_gradient(profile, g, dy, w):
    if g.minimal:
        turned = [[[[w[o][i][2 - r][2 - c] for c in range(3)] for r in range(3)] for o in range(g.outputs)]
                  for i in range(g.inputs)]
        back = Geometry(g.batch, g.outputs, g.output, g.inputs, g.kernel, g.stride, [2 - p for p in g.padding])
        assert back.output == g.input and min(back.padding) >= 0
        return minimal_output(profile, back, dy, turned)

    def at(image, row, column):
        gradients, places = [], []
        for r in reversed(range(g.kernel[0])):
            for c in reversed(range(g.kernel[1])):
                up, rest_up = divmod(row + g.padding[0] - r, g.stride[0])
                left, rest_left = divmod(column + g.padding[1] - c, g.stride[1])
                if rest_up == rest_left == 0 and 0 <= up < g.output[0] and 0 <= left < g.output[1]:
                    gradients += image[up][left]
                    places.append((r, c))
        return [profile.dot(gradients, [w[o][i][r][c] for r, c in places for o in range(g.outputs)])
                for i in range(g.inputs)]

    return [[[at(image, row, column) for column in range(g.input[1])] for row in range(g.input[0])] for image in dy]


def conv2d_weight_gradient(profile, g, x, dy):
    groups = weight_blocks(g.batch, *g.output)
    return (minimal_weight_gradient if g.minimal else direct_weight_gradient)(profile, g, x, dy, groups)


def direct_weight_gradient(profile, g, x, dy, groups):
    (kr, kc), (sr, sc), (pr, pc) = g.kernel, g.stride, g.padding
    every = [[[(image, row, column) for image, rows in block for row in rows for column in range(g.output[1])]
              for block in group] for group in groups]
    passed = [[[[dy[n][row][column][o] for n, row, column in block] for block in group] for group in every]
              for o in range(g.outputs)]

    def seen(i, r, c):
        return [[[pixel(x[n], row * sr + r - pr, column * sc + c - pc, g.inputs)[i] for n, row, column in block]
                 for block in group] for group in every]

    read = [[[seen(i, r, c) for c in range(kc)] for r in range(kr)] for i in range(g.inputs)]
    return [[[[long([list(zip(*pair)) for pair in zip(xs, dys)], lambda block: profile.dot(*block)) for xs in row]
              for row in of] for of in read] for dys in passed]


# ---- Minimal filtering -----------------------------------------------------------------------------------------

def b_transposed(a, b, c, d):
    return sub(a, c), add(b, c), sub(c, b), sub(b, d)


def g_plain(a, b, c):
    return a, mul(add(add(a, c), b), 0.5), mul(sub(add(a, c), b), 0.5), c


def a_transposed(a, b, c, d):
    return add(add(a, b), c), sub(sub(b, c), d)


def a_plain(a, b):
    return a, add(a, b), sub(a, b), -b


def g_transposed(a, b, c, d):
    h = mul(add(b, c), 0.5)
    return add(a, h), mul(sub(b, c), 0.5), add(h, d)


def twice(transform, tile):
    """First over the row index, for each column; then over the column index of what came out."""
    columns = [transform(*column) for column in zip(*tile)]
    return [transform(*row) for row in zip(*columns)]


def tile_of(image, row, column, size, channel, channels):
    return [[pixel(image, row + r, column + c, channels)[channel] for c in range(size)] for r in range(size)]


def filters(w):
    return [[flat([list(row) for row in twice(g_plain, kernel)]) for kernel in of] for of in w]


def read_tile(g, image, row, column):
    """Bᵀ d B of the tile whose output begins there, for each position the values of the channels."""
    tiles = [sum(twice(b_transposed, tile_of(image, row - g.padding[0], column - g.padding[1], 4, i, g.inputs)), ())
             for i in range(g.inputs)]
    return list(zip(*tiles))


def minimal_output(profile, g, x, w):
    rows, columns = g.output
    transformed = [list(zip(*of)) for of in filters(w)]
    y = [[[[0.0] * g.outputs for _ in range(columns)] for _ in range(rows)] for _ in x]
    for n, image in enumerate(x):
        for row in range(0, rows, 2):
            for column in range(0, columns, 2):
                seen = read_tile(g, image, row, column)
                for o, of in enumerate(transformed):
                    sums = [profile.dot(values, weights) for values, weights in zip(seen, of)]
                    written = twice(a_transposed, shaped(sums, 4, 4))
                    for r in range(min(2, rows - row)):
                        for c in range(min(2, columns - column)):
                            y[n][row + r][column + c][o] = written[r][c]
    return y


def minimal_weight_gradient(profile, g, x, dy, groups):
    """For each block the transformed tiles, for each position and channel a list of values."""

    def block_tiles(block):
        tiles = [(n, row, column) for n, rows in block for row in rows[::2] for column in range(0, g.output[1], 2)]
        seen = [read_tile(g, x[n], row, column) for n, row, column in tiles]
        passed = [list(zip(*[sum(twice(a_plain, tile_of(dy[n], row, column, 2, o, g.outputs)), ())
                             for o in range(g.outputs)])) for n, row, column in tiles]
        return tuple([list(zip(*[tile[at] for tile in of])) for at in range(16)] for of in (seen, passed))

    blocks = [[block_tiles(block) for block in group] for group in groups]

    def weight(o, i):
        sums = [long(blocks, lambda block: profile.dot(block[0][at][i], block[1][at][o])) for at in range(16)]
        return [list(row) for row in twice(g_transposed, shaped(sums, 4, 4))]

    return [[weight(o, i) for i in range(g.inputs)] for o in range(g.outputs)]


# ---- Linear ----------------------------------------------------------------------------------------------------

def linear(profile, x, w, bias):
    y = [[profile.dot(row, column) for column in zip(*w)] for row in x]
    return y if bias is None else [[add(value, b) for value, b in zip(row, bias)] for row in y]


def linear_input_gradient(profile, dy, w):
    return [[profile.dot(row, of) for of in w] for row in dy]


def linear_weight_gradient(profile, x, dy):
    blocks = range(0, len(x), 8)
    read = [[of[at:at + 8] for at in blocks] for of in zip(*x)]
    passed = [[of[at:at + 8] for at in blocks] for of in zip(*dy)]
    return [[long([list(zip(xs, dys))], lambda block: profile.dot(*block)) for dys in passed] for xs in read]


def bias_gradient(dy, batch, pixels):
    """Of `dy` as a list of pixels of all images, each a list of channels."""
    groups = channel_blocks(batch, pixels)
    return [long(groups, lambda block: short(of[p] for p in block)) for of in zip(*dy)]


# ---- Batch normalisation ---------------------------------------------------------------------------------------

def batch_norm(profile, batch, pixels, epsilon, x, gamma, beta, shortcut, rectified, given, dy):
    """`x`, `shortcut` and `dy` are lists of pixels of all images; all results by name."""
    groups, m = channel_blocks(batch, pixels), float(batch * pixels)
    epsilon = f32(epsilon)
    result = {name: [] for name in ("mean", "variance", "dgamma", "dbeta")}
    y, dx, dshortcut = ([[0.0] * len(gamma) for _ in x] for _ in range(3))
    for channel, (g, b) in enumerate(zip(gamma, beta)):
        values = [of[channel] for of in x]
        if given:
            mean, variance = (of[channel] for of in given)
        else:
            mean = div(long(groups, lambda block: short(values[p] for p in block)), m)
        centred = [sub(value, mean) for value in values]
        if not given:
            squares = long(groups, lambda block: profile.dot(*[[centred[p] for p in block]] * 2))
            variance = div(squares, m)
        r = div(1.0, root(add(variance, epsilon)))
        a = mul(g, r)
        for p, value in enumerate(centred):
            out = profile.plus(b, value, a)
            if shortcut:
                out = add(out, shortcut[p][channel])
            if rectified:
                out = relu(out)
            y[p][channel] = out
            dshortcut[p][channel] = relu_gradient(out, dy[p][channel]) if rectified else dy[p][channel]
        dz = [of[channel] for of in dshortcut]
        dbeta = long(groups, lambda block: short(dz[p] for p in block))
        dgamma = mul(long(groups, lambda block: profile.dot([dz[p] for p in block], [centred[p] for p in block])), r)
        share, slope = (0.0, 0.0) if given else (div(dbeta, m), div(mul(dgamma, r), m))
        for p, value in enumerate(centred):
            dx[p][channel] = mul(a, profile.plus(sub(dz[p], share), -value, slope))
        for name, value in (("mean", mean), ("variance", variance), ("dgamma", dgamma), ("dbeta", dbeta)):
            result[name].append(value)
    return result | {"y": y, "dx": dx, "dshortcut": dshortcut if shortcut else None}


def running_average(profile, average, observed, rate):
    return balanced(profile, average, f32(1 - rate), observed, f32(rate))


# ---- Pooling, elementwise operators ----------------------------------------------------------------------------

def windows(image, window, stride):
    """For each output place the places of its window, row by row."""
    rows, columns = ((len(part) - w) // s + 1 for part, w, s in zip((image, image[0]), window, stride))
    return [[[(row * stride[0] + r, column * stride[1] + c) for r in range(window[0]) for c in range(window[1])]
             for column in range(columns)] for row in range(rows)]


def pool(x, window, stride, maximum):
    def value(image, places, channel):
        values = [image[r][c][channel] for r, c in places]
        return values[first_greatest(values)] if maximum else div(short(values), float(len(values)))

    return [[[[value(image, places, channel) for channel in range(len(image[0][0]))] for places in row]
             for row in windows(image, window, stride)] for image in x]


def first_greatest(values):
    return max(range(len(values)), key=lambda i: (values[i], -i))


def pool_gradient(x, dy, window, stride, maximum):
    dx = []
    for image, passed in zip(x, dy):
        parts = [[[[] for _ in at] for at in row] for row in image]
        for row, gradients in zip(windows(image, window, stride), passed):
            for places, at in zip(row, gradients):
                for channel, gradient in enumerate(at):
                    if maximum:
                        r, c = places[first_greatest([image[r][c][channel] for r, c in places])]
                        parts[r][c][channel].append(gradient)
                    else:
                        for r, c in places:
                            parts[r][c][channel].append(div(gradient, float(len(places))))
        dx.append([[[short(values) for values in at] for at in row] for row in parts])
    return dx


def shortcut_a(x, channels_out, stride):
    ahead = (channels_out - len(x[0][0][0])) // 2
    behind = channels_out - len(x[0][0][0]) - ahead
    return [[[[0.0] * ahead + at + [0.0] * behind for at in row[::stride]] for row in image[::stride]] for image in x]


def shortcut_a_gradient(dy, channels, rows, columns, stride):
    ahead = (len(dy[0][0][0]) - channels) // 2
    return [[[image[row // stride][column // stride][ahead:ahead + channels]
              if row % stride == column % stride == 0 else [0.0] * channels
              for column in range(columns)] for row in range(rows)] for image in dy]


def relu(x):
    return x if x > 0 else 0.0


def relu_gradient(y, dy):
    return dy if y > 0 else 0.0


# ---- Cross-entropy ---------------------------------------------------------------------------------------------

def cross_entropy(profile, scores, targets, dloss):
    count = float(len(scores))
    losses, dscores = [], []
    for row, target in zip(scores, targets):
        below = [sub(score, max(row)) for score in row]
        powers = [exp(profile, value) for value in below]
        total = short(powers)
        log = ln(profile, total)
        losses.append(profile.dot([sub(value, log) for value in below], target))
        weight = short(target)
        dscores.append([mul(profile.plus(-t, div(power, total), weight), div(dloss, count))
                        for t, power in zip(target, powers)])
    loss = long(channel_blocks(len(scores), 1), lambda block: short(losses[p] for p in block))
    return div(-loss, count), dscores


# ---- Elementary functions --------------------------------------------------------------------------------------

LOG2E, HIGH, LOW = (from_bits(n) for n in (0x3FB8AA3B, 0x3F317200, 0x35BFBE8E))
EXP = [from_bits(n) for n in (0x3F000000, 0x3E2AAA47, 0x3D2AAA2F, 0x3C091DAB, 0x3AB6DA15)]
LN = [from_bits(n) for n in (0x3EAAAAA4, 0xBE800003, 0x3E4CD25B, 0xBE2AAE27, 0x3E119BB4, 0xBDFE1105, 0x3DF37835,
                             0xBDEF1E02, 0x3D8A2BCB)]


def horner(profile, coefficients, x):
    p = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        p = profile.plus(c, p, x)
    return p


def exp(profile, x):
    if x < -104:
        return 0.0
    if x > 89:
        return math.inf
    n = math.floor(profile.plus(0.5, x, LOG2E))
    r = profile.plus(profile.plus(x, -float(n), HIGH), -float(n), LOW)
    y = add(1.0, profile.plus(r, mul(r, r), horner(profile, EXP, r)))
    return mul(mul(y, 2.0 ** (n // 2)), 2.0 ** (n - n // 2))


def ln(profile, x):
    word = bits(x)
    assert 0x800000 <= word < 0x7F800000
    up = word & 0x7FFFFF > 0x3504F3
    n = float((word >> 23) - 127 + up)
    f = sub(from_bits(word & 0x7FFFFF | (126 if up else 127) << 23), 1.0)
    square = mul(f, f)
    t = profile.plus(mul(n, LOW), mul(square, f), horner(profile, LN, f))
    t = profile.plus(t, -0.5, square)
    return profile.plus(add(t, f), n, HIGH)


# ---- Updates ---------------------------------------------------------------------------------------------------

def balanced(profile, a, alpha, b, beta):
    """B(a, α, b, β)"""
    return profile.plus(mul(a, alpha), b, beta)


def sgd(profile, w, g, v, rate, momentum, dampening, weight_decay, nesterov):
    """One step of one weight; the first v is None."""
    if weight_decay:
        g = balanced(profile, g, 1.0, w, f32(weight_decay))
    if momentum:
        v = g if v is None else balanced(profile, g, f32(1 - dampening), v, f32(momentum))
        g = balanced(profile, g, 1.0, v, f32(momentum)) if nesterov else v
    return balanced(profile, w, 1.0, g, f32(-rate)), v


def power(base, exponent):
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def adam(profile, t, w, g, m, v, decoupled, rate, beta1, beta2, epsilon, weight_decay):
    """Step t (from 1) of one weight."""
    if weight_decay and not decoupled:
        g = balanced(profile, g, 1.0, w, f32(weight_decay))
    m = balanced(profile, m, f32(beta1), g, f32(1 - beta1))
    v = balanced(profile, v, f32(beta2), mul(g, g), f32(1 - beta2))
    c = f32(math.sqrt(1 - power(beta2, t)) / (1 - power(beta1, t)))
    e = f32(epsilon * math.sqrt(1 - power(beta2, t)))
    s = div(mul(m, c), add(root(v), e))
    return balanced(profile, w, f32(1 - rate * weight_decay) if decoupled else 1.0, s, f32(-rate)), m, v


# ---- Inputs ----------------------------------------------------------------------------------------------------

def words(seed):
    """xorshift32 (Marsaglia, 2003)."""
    x = seed
    while True:
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        yield x


def both(*values):
    return [f32(sign * value) for value in values for sign in (1, -1)]


UNIT = 2.0 ** -149
# Table: how many of 16 values are from it, and its values.
TABLES = {
    # products that vanish, that are a tie of zero and the smallest number, or just above
    "tiny": (16, both(1e-30, 1e-30, 2.0 ** -75, (1 + 2.0 ** -23) * 2.0 ** -75, 3e-23, 1e-23, 0.0) + [0.0, 1.0]),
    "subnormal": (12, both(UNIT, 3 * UNIT, 0x400001 * UNIT, 0x7FFFFF * UNIT, 2.0 ** -126, 1e-41, 0.5, 0.75, 1.5, 0.0)),
    # sums that cancel, ties, and what only one rounding tells from a tie
    "cancel": (15, both(1, 1 + 2.0 ** -23, 1 - 2.0 ** -24, 4096, 4097, 2.0 ** -12, 2.0 ** -24, 2.0 ** -25, 2.0 ** -23,
                        2.0 ** 24, 2.0 ** 24 - 1, 3, 0.5, 0)),
    "large": (15, both(1.9 * 2.0 ** 60, 1.3 * 2.0 ** 60, 2.0 ** 59, 1.1e18, 1e10, 1, 1e-20, 0)),
    "mixed": (6, both(1e-30, 2.0 ** -75, UNIT, 0x7FFFFF * UNIT, 1 + 2.0 ** -23, 2.0 ** -12, 2.0 ** -24, 4097,
                      2.0 ** 24, 1e-20, 1e10, 0)),
    "units": (16, both(UNIT, 3 * UNIT, 0x400001 * UNIT, 0)),
    "zeros": (16, [0.0, -0.0, -1.0]),
    "near": (16, [f32(1 + i * 2.0 ** -23) for i in range(-3, 6)]),  # a small variance
    "huge": (16, both(1.6e38, 1.2e38, 3e37, UNIT)),  # two of them can be added
}


def drawn(seed, table, count):
    draws = words(seed)
    share, values = TABLES.get(table, (0, []))

    def value(u):
        return values[(u >> 8) % len(values)] if u & 15 < share else (u >> 8) * 2.0 ** -22 - 2

    return [value(next(draws)) for _ in range(count)]


def hexadecimal(values):
    assert all(math.isfinite(value) for value in values)
    return "".join(f"{bits(value):08x}" for value in values)


SEED = iter(range(1, 1 << 20))


class Inputs:
    """The tensors of one case: drawn alike for both profiles, and written as words or as seeds."""

    def __init__(self, table, seeds=False):
        self.table, self.seeds, self.written = table, seeds, {}

    def take(self, name, *shape, table=None):
        seed = next(SEED) * 7919
        table = table or self.table
        return self.put(name, drawn(seed, table, math.prod(shape)), *shape,
                        written={"seed": seed, "table": table} if self.seeds else None)

    def put(self, name, values, *shape, written=None):
        values = [f32(value) for value in values]
        self.written[name] = written or hexadecimal(values)
        return shaped(values, *shape)


def written(results):
    return {name: None if tensor is None else hexadecimal(flat(tensor)) for name, tensor in results.items()}


# ---- Cases: each gives its fields and, for a profile, its results ----------------------------------------------

def conv2d_case(table, batch, channels_in, input, channels_out, kernel, stride, padding, bias=True, seeds=False,
                results=("y", "dx", "dw", "dbias"), tables={}, values={}):
    fields = dict(batch=batch, channels_in=channels_in, input=input, channels_out=channels_out, kernel=kernel,
                  stride=stride, padding=padding)
    g, inputs = Geometry(**fields), Inputs(table, seeds)
    shapes = {"x": (batch, *input, channels_in), "w": (channels_out, channels_in, *kernel), "bias": (channels_out,),
              "dy": (batch, *g.output, channels_out)}
    taken = {name: inputs.put(name, values[name], *shape) if name in values
             else inputs.take(name, *shape, table=tables.get(name))
             for name, shape in shapes.items() if name != "bias" or bias}
    x, w, dy = taken["x"], taken["w"], taken["dy"]
    how = {"y": lambda p: conv2d(p, g, x, w, taken.get("bias")),
           "dx": lambda p: conv2d_input_gradient(p, g, dy, w),
           "dw": lambda p: conv2d_weight_gradient(p, g, x, dy),
           "dbias": lambda p: bias_gradient([at for image in dy for row in image for at in row], batch,
                                            g.output[0] * g.output[1]) if bias else None}

    def calculated(profile):
        made = written({name: how[name](profile) for name in how if name in results or name + "_sha3" in results})
        for name in how:
            if name + "_sha3" in results:
                made[name + "_sha3"] = hashlib.sha3_256(bytes.fromhex(made.pop(name))).hexdigest()
        return made

    return fields | {"minimal": g.minimal} | {"bias": None} | inputs.written, calculated


def linear_case(table, rows, inputs, outputs, bias=True, tables={}, values={}):
    given = Inputs(table)
    take = lambda name, *shape: (given.put(name, values[name], *shape) if name in values
                                 else given.take(name, *shape, table=tables.get(name)))
    x, w = take("x", rows, inputs), take("w", inputs, outputs)
    b = given.take("bias", outputs) if bias else None
    dy = take("dy", rows, outputs)
    return (dict(rows=rows, inputs=inputs, outputs=outputs, bias=None) | given.written,
            lambda p: written({"y": linear(p, x, w, b), "dx": linear_input_gradient(p, dy, w),
                               "dw": linear_weight_gradient(p, x, dy),
                               "dbias": bias_gradient(dy, rows, 1) if bias else None}))


def batch_norm_case(table, batch, image, channels, rectified=False, shortcut=False, fixed=False, epsilon=1e-5,
                    tables={}):
    inputs, pixels = Inputs(table), image[0] * image[1]
    take = lambda name, *shape: inputs.take(name, *shape, table=tables.get(name))
    x = take("x", batch * pixels, channels)
    gamma, beta = take("gamma", channels), take("beta", channels)
    short_cut = take("shortcut", batch * pixels, channels) if shortcut else None
    dy = take("dy", batch * pixels, channels)
    given, statistics = None, None
    if fixed:
        of = Inputs(tables.get("statistics"))
        given = [of.take("mean", channels), [abs(v) for v in of.take("variance", channels)]]
        statistics = {"mean": hexadecimal(given[0]), "variance": hexadecimal(given[1])}
    fields = dict(batch=batch, image=image, channels=channels, epsilon=epsilon, rectified=rectified, fixed=fixed)
    return (fields | {"shortcut": None} | inputs.written | {"statistics": statistics},
            lambda p: written(batch_norm(p, batch, pixels, epsilon, x, gamma, beta, short_cut, rectified, given, dy)))


def pool_case(maximum, table, batch, channels, input, window, stride):
    inputs = Inputs(table)
    x = inputs.take("x", batch, *input, channels)
    places = windows(x[0], window, stride)
    dy = inputs.take("dy", batch, len(places), len(places[0]), channels)
    fields = dict(batch=batch, channels=channels, input=input, window=window, stride=stride)
    return (fields | inputs.written,
            lambda p: written({"y": pool(x, window, stride, maximum),
                               "dx": pool_gradient(x, dy, window, stride, maximum)}))


def shortcut_case(table, batch, channels_in, channels_out, input, stride):
    inputs = Inputs(table)
    x = inputs.take("x", batch, *input, channels_in)
    y = shortcut_a(x, channels_out, stride)
    dy = inputs.take("dy", batch, len(y[0]), len(y[0][0]), channels_out)
    fields = dict(batch=batch, channels_in=channels_in, channels_out=channels_out, input=input, stride=stride)
    return (fields | inputs.written,
            lambda p: written({"y": y, "dx": shortcut_a_gradient(dy, channels_in, *input, stride)}))


def relu_case(table, count):
    inputs = Inputs(table)
    x, dy = inputs.take("x", count), inputs.take("dy", count)
    y = [relu(value) for value in x]
    return {"count": count} | inputs.written, lambda p: written({"y": y, "dx": list(map(relu_gradient, y, dy))})


def dropout_case(table, count, probability):
    inputs = Inputs(table)
    x, dy = inputs.take("x", count), inputs.take("dy", count)
    units = drawn(next(SEED) * 7919, None, count)
    mask = inputs.put("mask", [0.0 if (unit + 2) / 4 < probability else 1 / (1 - probability) for unit in units], count)
    return ({"count": count, "probability": probability} | inputs.written,
            lambda p: written({"y": list(map(mul, x, mask)), "dx": list(map(mul, dy, mask))}))


def cross_entropy_case(table, rows, classes, dloss, one_hot=True, scores=None):
    inputs = Inputs(table)
    s = inputs.put("scores", scores, rows, classes) if scores else inputs.take("scores", rows, classes)
    if one_hot:
        hot = [[float(c == (5 * r + 1) % classes) for c in range(classes)] for r in range(rows)]
        targets = inputs.put("targets", flat(hot), rows, classes)
    else:
        targets = inputs.take("targets", rows, classes)
    d, = inputs.put("dloss", [dloss], 1)

    def calculated(profile):
        loss, dscores = cross_entropy(profile, s, targets, d)
        return written({"loss": [loss], "dscores": dscores})

    return {"rows": rows, "classes": classes} | inputs.written, calculated


def optimizer_case(table, count, options, step, kept):
    """`step(profile, t, w, g, kept values)` for one weight; three steps."""
    inputs = Inputs(table)
    w0 = inputs.take("w0", count)
    gradients = [inputs.take("g", count) for _ in range(3)]
    del inputs.written["g"]
    fields = options | {"w0": inputs.written["w0"], "gradients": [hexadecimal(g) for g in gradients]}

    def calculated(profile):
        result = {name: [] for name in ("w", *kept)}
        now = [(w, *kept.values()) for w in w0]
        for t, gradient in enumerate(gradients, 1):
            now = [step(profile, t, w, g, *rest) for (w, *rest), g in zip(now, gradient)]
            for name, values in zip(result, zip(*now)):
                result[name].append(None if values[0] is None else hexadecimal(values))
        return result

    return fields, calculated


def sgd_case(table, count, **options):
    return optimizer_case(table, count, options, lambda p, t, w, g, v: sgd(p, w, g, v, **options), {"v": None})


def adam_case(table, count, **options):
    return optimizer_case(table, count, options, lambda p, t, w, g, m, v: adam(p, t, w, g, m, v, **options),
                          {"m": 0.0, "v": 0.0})


def running_case(table, count, rate):
    inputs = Inputs(table)
    average, observed = inputs.take("average", count), inputs.take("observed", count)
    return ({"rate": rate} | inputs.written,
            lambda p: written({"result": [running_average(p, a, o, rate) for a, o in zip(average, observed)]}))


def around(x, count=1):
    """A value and its neighbours."""
    word = bits(f32(x))
    return [from_bits(word + i) for i in range(-count, count + 1) if (word & 0x7FFFFFFF) + i >= 0]


def exp_points():
    steps = [*range(-151, -120, 3), *range(-126, 129, 9), -150, -149, -128, -127, -125, -1, 0, 1, 2, 3, 127, 128]
    points = [x for n in steps for x in around((n - 0.5) * math.log(2))]
    for x in (-104, 89, -103.97208, -103.27893, -87.336544, 88.722839, -88, -95.5, 0.5, -0.5, 1, -1, 17.25, -33.125):
        points += around(x)
    points += [from_bits(w | s) for w in (0, 1, 0x7FFFFF, 0x800000, 0x33000000, 0x33800000, 0x33800001, 0x34000000,
                                          0x39ABCDEF) for s in (0, 1 << 31)]
    points += drawn(71, None, 24) + [x * 25 for x in drawn(72, None, 24)] + [x * 50 for x in drawn(73, None, 24)]
    points += [-106.0, -1000.0, from_bits(0xFF7FFFFF), 90.0, from_bits(0x7F7FFFFF)]
    return [f32(x) for x in points]


def ln_points():
    points = [x for e in [*range(-126, 128, 11), -126, -125, -2, -1, 0, 1, 2, 3, 127] for x in around(2.0 ** e)]
    points += [from_bits(e << 23 | m) for e in (1, 2, 100, 126, 127, 128, 200, 254)
               for m in range(0x3504F1, 0x3504F6)]
    points += around(1, 8) + around(math.e) + around(0.5 * math.sqrt(2), 3)
    points += [from_bits(0x7F7FFFFF - i) for i in range(3)] + [from_bits(0x800000 + i) for i in range(3)]
    points += [from_bits(u % 0x7F000000 + 0x800000) for u, _ in zip(words(81), range(40))]
    points += [x + 3 for x in drawn(82, None, 40)]
    points = [x for x in map(f32, points) if 0x800000 <= bits(x) < 0x7F800000]
    draws = (from_bits(u % 0x1000000 + 0x3F000000) for u in words(83))  # one in 300 tells the profiles apart
    telling = (x for x in draws if ln(Unfused, x) != ln(Fused, x))
    return points + [next(telling) for _ in range(12)]


def function_case(function, points):
    word = lambda values: "".join(f"{bits(value):08x}" for value in values)  # infinities too
    return {"x": word(points)}, lambda p: {"y": word([function(p, x) for x in points])}


def places_case():
    """One product that vanishes, below zero, at a sum's start, middle and end, beside +0, −0 and padding."""
    t = 1e-30
    return conv2d_case("tiny", 6, 1, [1, 3], 2, [1, 3], [1, 1], [0, 1], bias=False, values={
        "x": [-t, 0, 0, 0, -t, 0, 0, 0, -t, -t, -t, -t, 1, -1, -t, -t, 1, -1],
        "w": [t, t, t, 1, 1, t], "dy": [-t, t] * 3 + [0, -t] * 3 + [-t, 0.0] * 3 + [-0.0, -t] * 9})


def ties_case():
    """Sums that lie next to a tie by less than binary64 can tell: a fused multiply-add has to."""
    t, tie = 1e-30, 1 + 2.0 ** -12  # tie² is one
    p, q = (1 + 2.0 ** -11) * 2.0 ** -24, 1 - 2.0 ** -11 + 2.0 ** -22  # p·q = 2⁻²⁴ · (1 + 2⁻³³)
    return linear_case("cancel", 5, 3, 4, values={
        "x": [1, p, -0.0, 1 + 2.0 ** -23, -p, t, t, tie, UNIT, -t, -tie, 0, 2.0 ** -126, p * 2.0 ** -126, 0],
        "w": [1, -1, 1, -1, q, q, tie, tie, t, 1, -t, 0]})


def operator_cases():
    conv, linears, norms = [], [], []
    for case in (
            ("mixed", 2, 3, [3, 5], 2, [1, 1], [1, 1], [0, 0]),
            ("plain", 9, 1, [5, 4], 3, [3, 3], [2, 2], [1, 1]),
            ("mixed", 2, 1, [6, 5], 2, [5, 5], [1, 1], [2, 2]),
            ("subnormal", 3, 3, [5, 4], 5, [2, 3], [3, 1], [1, 0]),
            ("mixed", 2, 17, [2, 3], 1, [3, 3], [1, 1], [1, 1]),
            ("cancel", 4, 2, [3, 4], 2, [3, 3], [1, 1], [1, 1]),
            ("tiny", 17, 1, [2, 2], 1, [2, 2], [1, 1], [1, 1]),
            ("large", 2, 2, [3, 3], 2, [2, 3], [1, 2], [1, 1]),
            ("plain", 1, 1, [1, 2], 17, [3, 3], [1, 1], [1, 1])):
        conv.append(conv2d_case(*case, bias=case[0] not in ("subnormal", "plain")))
    conv.append(places_case())
    only = dict(seeds=True, results=("dw", "dbias"))
    conv += [
        # stride 2 with 16 channels on both sides is direct
        conv2d_case("mixed", 1, 16, [3, 4], 16, [3, 3], [2, 1], [1, 1], seeds=True, results=("y", "dx", "dw_sha3")),
        conv2d_case("mixed", 3, 1, [25, 26], 2, [3, 3], [1, 1], [0, 0], **only),  # 20 rows and 3, three images
        conv2d_case("plain", 2, 2, [3, 300], 1, [1, 1], [1, 1], [0, 0], **only),  # 2 rows and 1
        conv2d_case("plain", 3, 1, [16, 32], 1, [2, 2], [1, 1], [1, 1], **only),  # 17 × 33: 14 rows and 3
        conv2d_case("cancel", 3, 2, [16, 32], 1, [1, 1], [1, 1], [0, 0], **only),  # 512 pixels: one block an image
        conv2d_case("plain", 5, 1, [7, 73], 2, [1, 1], [1, 1], [0, 0], **only),  # 511: one image a block
        conv2d_case("mixed", 5, 1, [16, 16], 2, [3, 3], [1, 1], [1, 1], **only),  # two images a block
        conv2d_case("plain", 8, 1, [19, 9], 2, [1, 1], [1, 1], [0, 0], **only),  # 171 pixels: two
        conv2d_case("mixed", 7, 2, [10, 10], 1, [3, 3], [1, 1], [1, 1], **only),  # five
        conv2d_case("plain", 17, 1, [8, 8], 1, [3, 3], [1, 1], [1, 1], **only),  # eight, and eight, and one
        conv2d_case("plain", 45, 1, [4, 3], 1, [2, 2], [1, 1], [0, 0], **only)]  # six blocks
    every, small = ("y", "dx", "dw", "dbias"), ("y", "dx", "dw_sha3", "dbias")
    for table, results, *case in (
            ("plain", small, 2, 16, [3, 5], 16, [1, 1]),
            ("mixed", every, 9, 16, [1, 1], 17, [1, 1]),
            ("cancel", small, 2, 17, [4, 4], 16, [0, 0]),
            ("subnormal", small, 2, 16, [3, 3], 16, [2, 2]),
            ("units", ("dx", "dw_sha3"), 1, 16, [1, 2], 16, [1, 1]),  # halves that are ties
            ("tiny", small, 2, 16, [1, 1], 16, [2, 2]),
            ("large", small, 2, 16, [4, 3], 16, [1, 0]),
            ("plain", small, 1, 16, [1, 1], 16, [1, 1]),
            ("mixed", small, 2, 18, [3, 2], 20, [1, 2]),
            ("mixed", ("dw_sha3", "dbias"), 17, 16, [2, 1], 16, [1, 1]),  # eight, eight and one
            ("mixed", ("dw_sha3", "dbias"), 5, 16, [16, 16], 16, [1, 1]),  # two images a block
            ("plain", ("dw_sha3",), 2, 16, [23, 25], 16, [0, 0]),  # 21 × 23: 483 pixels, one image a block
            ("plain", ("dw",), 3, 16, [23, 25], 16, [1, 1])):  # 23 × 25: 20 rows and 3, three images
        batch, ins, input, outs, padding = case
        tables = {"subnormal": {"w": "plain"}, "units": {"dy": "plain"}}.get(table, {})
        conv.append(conv2d_case(table, batch, ins, input, outs, [3, 3], [1, 1], padding, bias=table != "plain",
                                seeds=True, results=results, tables=tables))
    for case in (("plain", 1, 3, 2), ("mixed", 3, 5, 4), ("cancel", 9, 7, 3), ("tiny", 8, 4, 3), ("subnormal", 17, 3, 2),
                 ("large", 2, 3, 5), ("mixed", 45, 1, 3), ("plain", 33, 2, 1), ("tiny", 1, 1, 1)):
        linears.append(linear_case(*case, bias=case[1] != 1))
    linears.append(linear_case("subnormal", 4, 9, 3, tables={"w": "plain", "dy": "plain"}))
    linears.append(ties_case())
    for table, batch, image, channels, options in (
            ("plain", 3, [1, 1], 3, {}),
            ("plain", 1, [1, 1], 2, {}),
            ("mixed", 2, [1, 3], 2, dict(rectified=True)),
            ("plain", 9, [2, 2], 1, dict(rectified=True, shortcut=True)),
            ("mixed", 3, [1, 5], 3, dict(shortcut=True)),
            ("plain", 1, [7, 7], 1, dict(rectified=True)),
            ("plain", 2, [8, 8], 1, dict(shortcut=True, epsilon=1e-3)),
            ("cancel", 2, [2, 2], 3, {}),
            ("tiny", 3, [1, 5], 3, dict(rectified=True, shortcut=True)),
            ("tiny", 2, [1, 3], 4, {}),
            ("subnormal", 3, [2, 2], 4, dict(shortcut=True)),
            ("large", 2, [1, 5], 3, dict(tables={"gamma": "plain", "beta": "plain"})),
            ("near", 3, [3, 3], 2, dict(epsilon=1e-12, tables={"dy": "mixed"})),
            ("mixed", 9, [1, 1], 3, dict(tables={"x": "near"})),
            ("plain", 2, [1, 1], 16, dict(epsilon=0.3)),
            ("plain", 2, [1, 3], 3, dict(fixed=True, rectified=True, shortcut=True)),
            ("mixed", 3, [2, 2], 3, dict(fixed=True)),
            ("tiny", 2, [1, 4], 4, dict(fixed=True, tables={"statistics": "tiny"})),
            ("subnormal", 1, [1, 5], 4, dict(fixed=True, shortcut=True, tables={"statistics": "subnormal"}))):
        norms.append(batch_norm_case(table, batch, image, channels, **options))
    pools = {maximum: [pool_case(maximum, *case) for case in (
        ("plain", 2, 3, [4, 5], [2, 2], [2, 2]), ("cancel", 1, 2, [5, 5], [3, 3], [2, 2]),
        ("tiny", 2, 2, [3, 4], [2, 3], [1, 1]), ("mixed", 1, 1, [7, 7], [7, 7], [7, 7]),
        ("subnormal", 2, 3, [3, 4], [3, 2], [1, 2]), ("huge", 2, 3, [2, 4], [1, 2], [1, 2]),
        ("zeros", 2, 2, [2, 4], [2, 2], [2, 2]),
        ("mixed", 1, 1, [6, 6], [3, 2], [1, 1]))] for maximum in (True, False)}
    entropies = [
        cross_entropy_case("plain", 3, 10, 1.0), cross_entropy_case("mixed", 2, 5, 1.0),
        cross_entropy_case("plain", 9, 4, 0.75, one_hot=False), cross_entropy_case("cancel", 5, 3, 1.0),
        cross_entropy_case("tiny", 3, 4, 1e-30, one_hot=False), cross_entropy_case("plain", 1, 1, 1.0),
        cross_entropy_case("subnormal", 2, 3, -2.0, one_hot=False),
        cross_entropy_case("large", 3, 4, 1.0),
        cross_entropy_case("plain", 4, 4, 3.0, scores=[
            0, -104, -103.5, -87.4, 88.5, 0, -15.5, -16, 0, 0, -0.0, 0, 1e-30, -1e-30, 20, 3.3]),
        cross_entropy_case("plain", 33, 2, 1.0)]
    rate = dict(rate=0.02)
    plain = dict(momentum=0.9, dampening=0.0, weight_decay=1e-4, nesterov=False)
    sgds = [sgd_case(table, count, **rate | plain | options) for table, count, options in (
        ("plain", 8, {}), ("mixed", 16, {}), ("mixed", 12, dict(nesterov=True)),
        ("mixed", 12, dict(dampening=0.9, momentum=0.7)), ("mixed", 12, dict(momentum=0.0)),
        ("cancel", 12, dict(weight_decay=0.0)), ("tiny", 16, {}), ("zeros", 12, dict(weight_decay=0.0)),
        ("subnormal", 16, dict(nesterov=True)), ("subnormal", 8, dict(momentum=0.0, weight_decay=0.0)),
        ("large", 8, dict(rate=0.3, dampening=0.1)), ("mixed", 12, dict(momentum=0.0, weight_decay=0.0, rate=1.0)))]
    usual = dict(rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01)
    adams = [adam_case(table, count, **dict(decoupled=decoupled) | usual | options)
             for decoupled in (False, True) for table, count, options in (
                 ("plain", 6, {}), ("mixed", 12, {}), ("tiny", 10, {}), ("subnormal", 10, dict(weight_decay=0.0)),
                 ("large", 6, dict(rate=0.1, weight_decay=9.0)), ("cancel", 8, dict(beta1=0.0, beta2=0.5, epsilon=1e-3)))]
    return {
        "exp": [function_case(exp, exp_points())], "ln": [function_case(ln, ln_points())],
        "conv2d": conv, "linear": linears, "batch_norm": norms,
        "running_statistics": [running_case("plain", 8, 0.1), running_case("mixed", 12, 0.9),
                               running_case("subnormal", 12, 0.1), running_case("tiny", 8, 0.25)],
        "max_pool": pools[True], "average_pool": pools[False],
        "shortcut": [shortcut_case("plain", 2, 2, 4, [4, 4], 2), shortcut_case("tiny", 1, 1, 3, [3, 5], 2),
                     shortcut_case("mixed", 2, 3, 3, [3, 4], 2), shortcut_case("mixed", 1, 2, 6, [2, 3], 1)],
        "relu": [relu_case(table, 24) for table in ("plain", "tiny", "subnormal")],
        "dropout": [dropout_case("plain", 12, 0.25), dropout_case("tiny", 16, 0.5), dropout_case("subnormal", 24, 0.1)],
        "cross_entropy": entropies, "sgd": sgds, "adam": adams}


def operators(profile, cases):
    made = {name: [fields | results(profile) for fields, results in of] for name, of in cases.items()}
    return made | {name: made[name][0] for name in ("exp", "ln")}


# ---- Hashes, streams, MessagePack (SPEC.md §§ 2–6), as in make.py ----------------------------------------------

def tagged(tag, *parts):
    data = bytes([len(tag)]) + tag.encode()
    for part in parts:
        data += struct.pack("<Q", len(part)) + part
    return hashlib.sha3_256(data).digest()


def number(n):
    return struct.pack("<Q", n)


def subtree(nodes):
    if len(nodes) == 1:
        return tagged("pol.v1.merkle.leaf", nodes[0])
    at = 1
    while at * 2 < len(nodes):
        at *= 2
    return tagged("pol.v1.merkle.node", subtree(nodes[:at]), subtree(nodes[at:]))


def merkle(kind, leaves):
    return tagged("pol.v1.merkle.root", kind.encode(), number(len(leaves)), subtree(leaves))


class Stream:
    """ChaCha20 with a 64-bit counter from zero and stream number 0."""

    def __init__(self, seed, purpose, *keys):
        self.key = struct.unpack("<8I", tagged("pol.v1.stream", seed, purpose.encode(), *keys))
        self.counter, self.waiting = 0, []

    def block(self):
        counter = [self.counter & 0xFFFFFFFF, self.counter >> 32]
        start = [*struct.unpack("<4I", b"expand 32-byte k"), *self.key, *counter, 0, 0]
        self.counter += 1
        s = list(start)
        for _ in range(10):
            for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                               (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    s[x] = (s[x] + s[y]) & 0xFFFFFFFF
                    mixed = s[z] ^ s[x]
                    s[z] = ((mixed << turn) | (mixed >> (32 - turn))) & 0xFFFFFFFF
        return [(a + b) & 0xFFFFFFFF for a, b in zip(s, start)]

    def u64(self):
        if not self.waiting:
            block = self.block()
            self.waiting = [low | high << 32 for low, high in zip(block[::2], block[1::2])]
        return self.waiting.pop(0)

    def below(self, n):
        while True:
            draw = self.u64()
            if draw >= 2 ** 64 % n:
                return draw % n

    def unit(self):
        return (self.u64() >> 11) * 2.0 ** -53

    def normal(self):
        u, v = self.unit(), self.unit()
        return math.sqrt(-2.0 * math.log(1.0 - u)) * math.cos(2.0 * math.pi * v)

    def permutation(self, n):
        order = list(range(n))
        for last in range(n - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order


def pack(value):
    """Canonical MessagePack of what a recipe holds."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        for limit, head, form in ((128, b"", "B"), (256, b"\xcc", "B"), (1 << 16, b"\xcd", ">H"),
                                  (1 << 32, b"\xce", ">I"), (1 << 64, b"\xcf", ">Q")):
            if value < limit:
                return head + struct.pack(form, value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        assert len(data) < 32
        return bytes([0xA0 | len(data)]) + data
    assert isinstance(value, dict) and len(value) < 16
    return bytes([0x80 | len(value)]) + b"".join(pack(k) + pack(v) for k, v in value.items())


# ---- The default recipe: LeNet-5 on the digits (MODELS.md) -----------------------------------------------------

def training_records(path):
    """The digits but for each fifth, as (label, pixels)."""
    with gzip.open(path, "rt", newline="") as file:
        rows = [[int(value) for value in row] for row in csv.reader(file)]
    return [(row[64], bytes(row[:64])) for index, row in enumerate(rows) if index % 5]


def image_of(pixels):
    largest, mean, deviation = 16.0, f32(0.305), f32(0.376)
    values = [div(sub(div(float(pixel), largest), mean), deviation) for pixel in pixels]
    return shaped(values, 8, 8, 1)


LAYERS = {"conv1": [6, 1, 5, 5], "conv2": [16, 6, 5, 5], "fc1": [64, 120], "fc2": [120, 84], "fc3": [84, 10]}


def initial_weights(seed):
    """By path, flat."""
    weights = {}
    for layer, shape in LAYERS.items():
        stream = Stream(seed, "weights", f"{layer}.weight".encode())
        fan_in = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
        deviation = math.sqrt(2.0 / fan_in)
        drawn = [stream.normal() * deviation for _ in range(math.prod(shape))]
        # libm's bits differ from these by a few units of binary64, which must not show in binary32
        assert all(f32(value * (1 - 2.0 ** -49)) == f32(value * (1 + 2.0 ** -49)) for value in drawn)
        weights[f"{layer}.weight"] = [f32(value) for value in drawn]
        weights[f"{layer}.bias"] = [0.0] * shape[0 if len(shape) == 4 else 1]
    return weights


def shape_of(path, values):
    layer, field = path.split(".")
    return LAYERS[layer] if field == "weight" else [len(values)]


def pixels_of(tensor):
    return [at for image in tensor for row in image for at in row]


def each(function, *tensors):
    """Elementwise, on nested lists of one shape."""
    if isinstance(tensors[0], list):
        return [each(function, *parts) for parts in zip(*tensors)]
    return function(*tensors)


def gradients(profile, weights, images, labels):
    """Forward and backward; the gradients by path, flat."""
    batch = len(images)
    w = {path: shaped(values, *shape_of(path, values)) for path, values in weights.items()}
    geometry = {"conv1": Geometry(batch, 1, [8, 8], 6, [5, 5], [1, 1], [2, 2]),
                "conv2": Geometry(batch, 6, [4, 4], 16, [5, 5], [1, 1], [2, 2])}
    x, seen, active = images, {}, {}
    for layer in ("conv1", "conv2"):
        seen[layer] = x
        active[layer] = each(relu, conv2d(profile, geometry[layer], x, w[f"{layer}.weight"], w[f"{layer}.bias"]))
        x = pool(active[layer], [2, 2], [2, 2], True)
    x = [[image[r][c][channel] for channel in range(16) for r in range(2) for c in range(2)] for image in x]
    for layer in ("fc1", "fc2", "fc3"):
        seen[layer] = x
        active[layer] = linear(profile, x, w[f"{layer}.weight"], w[f"{layer}.bias"])
        if layer != "fc3":
            active[layer] = each(relu, active[layer])
        x = active[layer]
    targets = [[float(c == label) for c in range(10)] for label in labels]
    _, d = cross_entropy(profile, x, targets, 1.0)
    found = {}
    for layer in ("fc3", "fc2", "fc1"):
        if layer != "fc3":
            d = each(relu_gradient, active[layer], d)
        found[f"{layer}.weight"] = linear_weight_gradient(profile, seen[layer], d)
        found[f"{layer}.bias"] = bias_gradient(d, batch, 1)
        d = linear_input_gradient(profile, d, w[f"{layer}.weight"])
    d = [[[[values[channel * 4 + r * 2 + c] for channel in range(16)] for c in range(2)] for r in range(2)]
         for values in d]
    for layer in ("conv2", "conv1"):
        g = geometry[layer]
        d = pool_gradient(active[layer], d, [2, 2], [2, 2], True)
        d = each(relu_gradient, active[layer], d)
        found[f"{layer}.weight"] = conv2d_weight_gradient(profile, g, seen[layer], d)
        found[f"{layer}.bias"] = bias_gradient(pixels_of(d), batch, g.output[0] * g.output[1])
        if layer == "conv2":
            d = conv2d_input_gradient(profile, g, d, w["conv2.weight"])
    return {path: flat(values) for path, values in found.items()}


def state_digest(weights, velocities, step, rate):
    words = lambda values: struct.pack(f"<{len(values)}f", *values)
    entries = [(f"model/{path}", "f32", shape_of(path, values), words(values)) for path, values in weights.items()]
    entries += [(f"optim/{path}/momentum.velocity", "f32", shape_of(path, values), words(values))
                for path, values in velocities.items()]
    entries += [("schedule/step", "u64", [], number(step)),
                ("schedule/learning_rate", "f64", [], struct.pack("<d", rate))]
    return merkle("state", [
        tagged("pol.v1.entry", name.encode(), kind.encode(), b"".join(map(number, shape)), data)
        for name, kind, shape, data in sorted(entries, key=lambda entry: entry[0].encode())])


def default_recipe(profile, records, steps=3):
    batch, total = 32, 12 * (len(records) // 32)
    decay = 1e-4
    recipe = {"model": {"name": "lenet5", "options": {}}, "data": {"name": "digits", "options": {}},
              "optimizer": {"sgd": {"momentum": 0.9, "dampening": 0.0, "weight_decay": decay, "nesterov": False}},
              "learning_rate": {"base": 0.02, "warmup": 0, "decay": {"cosine": {"min": 0.0}}},
              "batch_size": batch, "steps": total, "numerics": f"exact/{profile.name}"}
    recipe_digest = tagged("pol.v1.recipe", pack(recipe))
    data_root = merkle("records", [tagged("pol.v1.record", number(label), data) for label, data in records])
    seed = tagged("pol.v1.seed", data_root, recipe_digest, b"", number(0))
    rate = lambda t: 0.0 + (0.02 - 0.0) * ((1 + math.cos(math.pi * (t / total))) / 2)
    weights, velocities = initial_weights(seed), {}
    order = Stream(seed, "permutation", number(0)).permutation(len(records))
    states = [state_digest(weights, velocities, 0, rate(0))]
    for t in range(steps):
        taken = [records[i] for i in order[t * batch:(t + 1) * batch]]
        found = gradients(profile, weights, [image_of(data) for _, data in taken], [label for label, _ in taken])
        for path, values in weights.items():
            before = velocities.get(path, [None] * len(values))
            moved = [sgd(profile, *of, rate(t), 0.9, 0.0, decay, False) for of in zip(values, found[path], before)]
            weights[path], velocities[path] = ([of[i] for of in moved] for i in range(2))
        states.append(state_digest(weights, velocities, t + 1, rate(t + 1)))
    return {"numerics": f"exact/{profile.name}", "seed": seed.hex(), "recipe_digest": recipe_digest.hex(),
            "data_root": data_root.hex(), "states": [state.hex() for state in states]}


# ---- The file --------------------------------------------------------------------------------------------------

COMMENT = [
    "Made by exact.py from NUMERICS.md, SPEC.md and MODELS.md alone. A tensor is one string of binary32 words of 8",
    "hexadecimal digits each, in row-major order: images [batch, row, column, channel], kernels [out, in, row, column].",
    "Where a conv2d has {seed, table} in place of a string, it is drawn: x = seed; for each value x ^= x << 13, x ^= x >> 17,",
    "x ^= x << 5, in 32 bits; the value is table.words[(x >> 8) % length] if x & 15 < table.share, else",
    "(x >> 8) · 2⁻²² − 2. Results that a case lacks are not compared; `dw_sha3` is SHA3-256 of dw's bytes, each word big-endian.",
    "y includes the bias; `minimal` says whether minimal filtering applies. batch_norm's tensors are [batch · pixels, channels];",
    "mean and variance are the given ones if `fixed`. Constants that are JSON numbers are binary64, as a recipe has them.",
    "Optimizers have w and what they keep after each of three steps at one rate. The recipe is digits-lenet.toml with an",
    "empty key, nonce 0, and states 0 to 3.",
]


def lines(value, depth):
    """JSON with one line for each case."""
    if depth == 0 or not value or not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {lines(part, depth - 1)}" for name, part in value.items()]
        return "{\n" + ",\n".join(parts) + "\n}"
    return "[\n" + ",\n".join(json.dumps(part, ensure_ascii=False) for part in value) + "\n]"


def main():
    check_rounding()
    cases = operator_cases()
    tables = {name: {"share": share, "words": hexadecimal(values)} for name, (share, values) in TABLES.items()}
    tables["plain"] = {"share": 0, "words": ""}
    profiles = {profile.name: operators(profile, cases) for profile in (Unfused, Fused)}
    made = {"comment": COMMENT, "tables": tables, "profiles": profiles}
    folder = sys.argv[1] if len(sys.argv) > 1 else "../../datasets"
    records = training_records(f"{folder}/digits.csv.gz")
    made["recipe"] = [default_recipe(profile, records) for profile in (Unfused, Fused)]
    with open("exact.json", "w", encoding="utf-8") as file:
        file.write(lines(made, 3) + "\n")


if __name__ == "__main__":
    main()
