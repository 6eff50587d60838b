#!/usr/bin/env python3
"""Makes the vectors in this folder from SPEC.md alone, without the Rust code.

SHA3-256 is Python's; ChaCha20, MessagePack and the trees are written out here. Run it in this
folder after a change of the format; the tests only read the JSON files.
"""
import copy
import hashlib
import json
import math
import struct
import zlib


def tagged(tag, *parts):
    data = bytes([len(tag)]) + tag.encode()
    for part in parts:
        data += struct.pack("<Q", len(part)) + part
    return hashlib.sha3_256(data).digest()


def number(n):
    return struct.pack("<Q", n)


def subtree(nodes):
    if not nodes:
        return tagged("pol.v1.merkle.empty")
    if len(nodes) == 1:
        return tagged("pol.v1.merkle.leaf", nodes[0])
    at = split(len(nodes))
    return tagged("pol.v1.merkle.node", subtree(nodes[:at]), subtree(nodes[at:]))


def split(count):
    at = 1
    while at * 2 < count:
        at *= 2
    return at


def opened(leaves, indices, offset=0):
    """The nodes beside the opened leaves, from left to right."""
    if not indices:
        return [subtree(leaves)]
    if len(leaves) <= 1:
        return []
    at = split(len(leaves))
    left = [i for i in indices if i < offset + at]
    right = [i for i in indices if i >= offset + at]
    return opened(leaves[:at], left, offset) + opened(leaves[at:], right, offset + at)


def merkle(kind, leaves):
    return tagged("pol.v1.merkle.root", kind.encode(), number(len(leaves)), subtree(leaves))


class Stream:
    """ChaCha20 with a 64-bit counter from zero and a 64-bit stream number."""

    def __init__(self, key, position):
        self.key = struct.unpack("<8I", key)
        self.position = position
        self.counter = 0
        self.words = []

    def block(self):
        constants = struct.unpack("<4I", b"expand 32-byte k")
        split = lambda n: (n & 0xFFFFFFFF, n >> 32)
        start = [*constants, *self.key, *split(self.counter), *split(self.position)]
        self.counter += 1
        s = list(start)

        def quarter(a, b, c, d):
            for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                s[x] = (s[x] + s[y]) & 0xFFFFFFFF
                mixed = s[z] ^ s[x]
                s[z] = ((mixed << turn) | (mixed >> (32 - turn))) & 0xFFFFFFFF

        for _ in range(10):
            for columns in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
                quarter(*columns)
            for diagonals in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                quarter(*diagonals)
        return [(a + b) & 0xFFFFFFFF for a, b in zip(s, start)]

    def u64(self):
        if not self.words:
            self.words = self.block()
        low, high = self.words[:2]
        self.words = self.words[2:]
        return low | high << 32

    def below(self, n):
        biased = 2**64 % n
        while True:
            draw = self.u64()
            if draw >= biased:
                return draw % n

    def unit(self):
        return (self.u64() >> 11) * 2.0**-53

    def permutation(self, n):
        order = list(range(n))
        for last in range(n - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def sample(self, n, q):
        """The first q exchanges of a shuffle from the first position up."""
        order = list(range(n))
        for place in range(min(q, n)):
            other = place + self.below(n - place)
            order[place], order[other] = order[other], order[place]
        return sorted(order[:q])

    def normal(self):
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
        return radius * math.cos(2.0 * math.pi * self.unit())


def stream(seed, purpose, *keys, position=0):
    return Stream(tagged("pol.v1.stream", seed, purpose.encode(), *keys), position)


def pack(value):
    """Canonical MessagePack: maps in the order given, shortest integers."""
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        assert value >= 0
        for limit, head, form in ((128, b"", "B"), (256, b"\xcc", "B"), (1 << 16, b"\xcd", ">H"),
                                  (1 << 32, b"\xce", ">I"), (1 << 64, b"\xcf", ">Q")):
            if value < limit:
                return head + struct.pack(form, value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        head = bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])
        return head + data
    if isinstance(value, bytes):
        if len(value) < 256:
            return b"\xc4" + bytes([len(value)]) + value
        return b"\xc5" + struct.pack(">H", len(value)) + value
    if isinstance(value, dict):
        assert len(value) < 16
        return bytes([0x80 | len(value)]) + b"".join(pack(k) + pack(v) for k, v in value.items())
    assert isinstance(value, list) and len(value) < 16
    return bytes([0x90 | len(value)]) + b"".join(map(pack, value))


def write(name, vectors):
    with open(name, "w", encoding="utf-8") as file:
        json.dump(vectors, file, indent=1)
        file.write("\n")


digests = [("t", []), ("t", [b""]), ("pol.v1.test", [b"a", b"bc"]), ("pol.v1.test", [bytes(200)])]
write("digest.json", [
    {"tag": tag, "parts": [p.hex() for p in parts], "digest": tagged(tag, *parts).hex()}
    for tag, parts in digests])

trees = []
for kind in ("state", "records", "checkpoints", "model"):
    for count in (0, 1, 2, 3, 7, 8, 9):
        leaves = [tagged("leaf", number(i)) for i in range(count)]
        indices = [i for i in range(count) if i % 3 == 1]
        trees.append({"tree": kind, "leaves": [l.hex() for l in leaves],
                      "root": merkle(kind, leaves).hex(), "opened": indices,
                      "nodes": [n.hex() for n in opened(leaves, indices)]})
write("merkle.json", trees)

seed = tagged("vector")
streams = []
for purpose, keys, position, fields in (
        ("weights", [b"stem.weight"], 0, {"path": "stem.weight"}),
        ("permutation", [number(3)], 0, {"epoch": 3}),
        ("augmentation", [number(1)], 77, {"epoch": 1, "record": 77}),
        ("dropout", [number(1 << 33)], 2, {"step": 1 << 33, "layer": 2}),
        ("audit", [], 0, {}),
        ("noise", [number(7)], 3, {"segment": 7, "replay": 3})):
    fresh = lambda: stream(seed, purpose, *keys, position=position)
    draws = fresh()
    streams.append({
        "seed": seed.hex(), "purpose": purpose, **fields,
        "u64": [str(draws.u64()) for _ in range(20)],  # past the end of the first block
        "below_10": [(lambda s: [s.below(10) for _ in range(8)])(fresh())][0],
        "below_large": str(fresh().below(3 << 62)),
        "unit": fresh().unit(), "normal": fresh().normal(),
        "permutation_12": fresh().permutation(12), "sample_5_of_12": fresh().sample(12, 5)})
write("stream.json", streams)

entries = [
    ("model/bias", "f32", [2], struct.pack("<2f", 1.5, -0.0)),
    ("model/weight", "f32", [2, 3], struct.pack("<6f", *range(6))),
    ("optim/weight/time", "u64", [], number(9)),
    ("schedule/learning_rate", "f64", [], struct.pack("<d", 0.1)),
    ("schedule/step", "u64", [], number(9)),
]
leaves = [tagged("pol.v1.entry", n.encode(), d.encode(), b"".join(map(number, s)), b)
          for n, d, s, b in entries]
model_leaves = leaves[:2]
write("state.json", {
    "entries": [{"name": n, "dtype": d, "shape": s, "bytes": b.hex(), "leaf": leaf.hex()}
                for (n, d, s, b), leaf in zip(entries, leaves)],
    "digest": merkle("state", leaves).hex(), "model": merkle("model", model_leaves).hex()})



def frame(content, window=None):
    """A zstd frame of one uncompressed block (RFC 8878, §3.1.1); with a window descriptor, or without."""
    assert len(content) < 256
    if window is None:
        header = bytes([0x20, len(content)])  # a single segment, its size in one byte
    else:
        header = bytes([0x00, (window - 10) << 3])
    return b"\x28\xb5\x2f\xfd" + header + struct.pack("<I", len(content) << 3 | 1)[:3] + content


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def ordered(dtype, x, bits):
    return x ^ ((1 << bits - 1) - 1) if dtype in ("f32", "f64") and x >> bits - 1 else x


def minus(dtype, x, y, bits):
    difference = (ordered(dtype, x, bits) - ordered(dtype, y, bits)) % (1 << bits)
    return (difference << 1) % (1 << bits) if difference >> bits - 1 == 0 else 2 * ((1 << bits) - difference) - 1


SIZES = {"f64": 8, "u64": 8, "f32": 4, "u8": 1}


def planes(coded):
    """Bytes of one significance together, for each element size; `coded` are (dtype, elements)."""
    values = b""
    for size in (8, 4, 2, 1):
        elements = [x for dtype, xs in coded if SIZES[dtype] == size for x in xs]
        values += bytes(x >> 8 * place & 255 for place in range(size) for x in elements)
    return values


def elements(dtype, data):
    size = SIZES[dtype]
    return [int.from_bytes(data[i:i + size], "little") for i in range(0, len(data), size)]


def state_digest(entries):
    return merkle("state", [tagged("pol.v1.entry", n.encode(), d.encode(), b"".join(map(number, s)), b)
                            for n, d, s, b in entries])


def stored(payload):
    data = pack(payload)
    return struct.pack("<I", zlib.crc32(data)) + data


def whole(entries, values=None):
    if values is None:
        values = frame(planes([(d, elements(d, b)) for _, d, _, b in entries]))
    return stored({"whole": {"entries": [{"name": n, "dtype": d, "shape": s} for n, d, s, _ in entries],
                             "values": values}})


def difference(entries, base, codings):
    factors = (float32(0.01), float32(0.1))
    coded = []
    for (name, dtype, _, data), (_, _, _, before), coding in zip(entries, base, codings):
        xs, ys, bits = elements(dtype, data), elements(dtype, before), 8 * SIZES[dtype]
        if coding == 2:
            of = "optim/" + name[6:] + "/momentum.velocity"
            before, now = ([v for v, in struct.iter_unpack("<f", {n: b for n, _, _, b in state}[of])]
                           for state in (base, entries))
            floats = [struct.unpack("<f", struct.pack("<I", y))[0] for y in ys]
            moved = [float32(y - float32(float32(factors[0] * v) + float32(factors[1] * w)))
                     for y, v, w in zip(floats, before, now)]
            ys = [struct.unpack("<I", struct.pack("<f", z))[0] for z in moved]
        coded.append((dtype, xs if coding == 0 else [minus(dtype, x, y, bits) for x, y in zip(xs, ys)]))
    motions = struct.pack("<2f", *factors) * codings.count(2)
    return stored({"difference": {"base": state_digest(base), "codings": bytes(codings), "motions": motions,
                                  "values": frame(planes(coded))}})


def at_step(step, weights, velocity, flag):
    return [("model/flag", "u8", [1], bytes([flag])),
            ("model/weight", "f32", [3], struct.pack("<3f", *weights)),
            ("optim/weight/momentum.velocity", "f32", [3], struct.pack("<3f", *velocity)),
            ("schedule/learning_rate", "f64", [], struct.pack("<d", 0.1)),
            ("schedule/step", "u64", [], number(step))]


first = at_step(7, (1.5, -0.25, 0.0), (0.5, 2.0, -1.0), 200)
second = at_step(8, (1.45, -0.45, 0.125), (0.5, 2.0, -1.25), 3)
third = at_step(9, (1.5, -0.5, -0.0), (-0.5, 1e-30, 0.0), 3)
chain = [(first, whole(first)), (second, difference(second, first, [1, 2, 1, 1, 1])),
         (third, difference(third, second, [0, 1, 0, 1, 1]))]
good = [{"state": state_digest(s).hex(), "bytes": b.hex()} for s, b in chain]
values = [[n, b.hex()] for n, _, _, b in third]


def refused(name, why, state, *objects):
    return {"name": name, "why": why, "state": state_digest(state).hex(),
            "objects": good[:1] + [{"state": state_digest(s).hex(), "bytes": b.hex()} for s, b in objects]}


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


write("object.json", {
    "objects": good, "state": state_digest(third).hex(), "values": values,
    "rejected": [
        refused("wrong-checksum", "a byte of the CRC", second, (second, flipped(chain[1][1], 0))),
        refused("damaged", "a byte of the payload", second, (second, flipped(chain[1][1], 40))),
        refused("cut", "three bytes", second, (second, chain[1][1][:3])),
        refused("other-content", "another state under this name", second, (second, whole(third))),
        refused("no-base", "a base that is not there", third, (third, chain[2][1])),
        refused("itself", "a difference from itself", second,
                (second, difference(second, second, [1, 1, 1, 1, 1]))),
        refused("unknown-coding", "a coding the format lacks", second,
                (second, stored({"difference": {"base": state_digest(first), "codings": b"\1\3\1\1\1",
                                                "motions": b"", "values": frame(bytes(41))}}))),
        refused("too-few-codings", "four for five entries", second,
                (second, stored({"difference": {"base": state_digest(first), "codings": b"\1\1\1\1",
                                                "motions": b"", "values": frame(bytes(41))}}))),
        refused("step-of-velocity", "coding 2 for what is no parameter", second,
                (second, stored({"difference": {"base": state_digest(first), "codings": b"\1\1\2\1\1",
                                                "motions": bytes(8), "values": frame(bytes(41))}}))),
        refused("no-factors", "a motion without factors", second,
                (second, stored({"difference": {"base": state_digest(first), "codings": b"\1\2\1\1\1",
                                                "motions": b"", "values": frame(bytes(41))}}))),
        refused("too-long", "values beyond the shapes", second,
                (second, whole(second, frame(bytes(42))))),
        refused("too-short", "values that do not fill the shapes", second,
                (second, whole(second, frame(bytes(40))))),
        refused("window", "a window of 16 MiB", second,
                (second, whole(second, frame(planes([(d, elements(d, b)) for _, d, _, b in second]), 24)))),
        refused("old", "the layout of pol/v2", second,
                (second, stored({"entries": [], "values": frame(b"")}))),
    ]})

records = [(0, b"\x01\x02"), (9, b""), (255, bytes(range(32)))]
record_leaves = [tagged("pol.v1.record", number(label), data) for label, data in records]
data_root = merkle("records", record_leaves)
secret = b"a private key"
salt_secret = tagged("pol.v1.salt.secret", secret)
salted_root = merkle("records", [
    tagged("pol.v1.record.salted", tagged("pol.v1.salt", salt_secret, number(i)), number(label), data)
    for i, (label, data) in enumerate(records)])
recipe = {
    "model": {"name": "mlp", "options": {"dropout": 0.25, "hidden": 128}},
    "data": {"name": "digits", "options": {"augmentation": "none"}},
    "optimizer": {"sgd": {"momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4,
                          "nesterov": False}},
    "learning_rate": {"base": 0.1, "warmup": 5,
                      "decay": {"multistep": {"milestones": [100, 70000], "gamma": 0.1}}},
    "batch_size": 2, "steps": 100_000, "numerics": "stock"}
recipe_digest = tagged("pol.v1.recipe", pack(recipe))
nonce = 41
key = b"\x02" + bytes(range(32))
training_seed = tagged("pol.v1.seed", data_root, recipe_digest, key, number(nonce))
terms = {"format": "pol/v3", "recipe": recipe,
         "data": {"records": 3, "root": data_root, "salted": False}, "key": key, "nonce": nonce,
         "seed": training_seed, "start": "derived", "batches": "derived", "interval": 50_000}
checkpoints = [{"step": step, "state": tagged("state", number(step)), "batches": None}
               for step in (0, 50_000, 100_000)]
checkpoint_leaves = [tagged("pol.v1.checkpoint", pack(c)) for c in checkpoints]
check = tagged("pol.v1.journal.record", tagged("pol.v1.journal"), pack({"start": terms}))
for checkpoint in checkpoints[:2]:
    check = tagged("pol.v1.journal.record", check, pack({"checkpoint": checkpoint}))
journal_head = check
model = merkle("model", model_leaves)
claim = {"terms": terms, "checkpoints": 3,
         "checkpoints_root": merkle("checkpoints", checkpoint_leaves),
         "model": model}
manifest = pack({"claim": claim, "checkpoints": checkpoints})


commitment = tagged("pol.v1.commitment", pack(claim))


def challenge(draw, randomness, interval):
    packed = pack({"format": "pol-challenge/v2", "commitment": commitment, "draw": draw,
                   "randomness": randomness})
    if randomness == "offline":
        audit_seed = tagged("pol.v1.audit.offline", commitment, pack(draw))
    else:
        audit_seed = randomness["fresh"]
    count = 100_000 // interval
    drawn = count if draw == "all" else draw["sample"]
    segments = {*stream(audit_seed, "audit").sample(count, drawn), count - 1}
    return {"challenge": packed.hex(), "digest": tagged("pol.v1.challenge", packed).hex(),
            "seed": audit_seed.hex(), "interval": interval, "segments": sorted(segments)}


fresh_seed = tagged("the verifier's randomness")
challenges = [challenge(draw, randomness, interval)
              for draw, interval in (("all", 50_000), ({"sample": 1}, 50_000), ({"sample": 2}, 50_000),
                                     ({"sample": 1}, 2_500), ({"sample": 7}, 2_500))
              for randomness in ({"fresh": fresh_seed}, "offline")]
former = pack({"format": "pol-challenge/v1", "commitment": commitment, "draw": {"sample": 1},
               "randomness": {"fresh": fresh_seed}})
write("audit.json", {
    "commitment_file": pack({"format": "pol-commitment/v1", "claim": claim, "attestations": [
        {"name": "commitment.tsr", "content": b"a token"}]}).hex(),
    "commitment": commitment.hex(), "key_id": tagged("pol.v1.key", key).hex(),
    "challenges": challenges, "former_challenge": former.hex()})


def faulty(name, why, data):
    return {"name": name, "why": why, "manifest": data.hex()}


def with_claim(change):
    altered = copy.deepcopy(claim)
    change(altered)
    return pack({"claim": altered, "checkpoints": checkpoints})


steps_at = manifest.index(pack("steps")) + len(pack("steps"))
write("manifest.json", {
    "records": [{"label": label, "bytes": data.hex()} for label, data in records],
    "data_root": data_root.hex(), "salted_root": salted_root.hex(), "secret": secret.hex(),
    "prior": pack({"prior": {"commitment": data_root}}).hex(),
    "journal_head": journal_head.hex(), "recipe": pack(recipe).hex(),
    "recipe_digest": recipe_digest.hex(), "seed": training_seed.hex(),
    "manifest": manifest.hex(), "commitment": commitment.hex(),
    "rejected": [
        faulty("empty", "no bytes", b""),
        faulty("cut", "the last byte is missing", manifest[:-1]),
        faulty("extended", "a byte too many", manifest + b"\x00"),
        faulty("array", "a struct as an array", b"\x92" + manifest[1:]),
        faulty("long-integer", "steps as a 64-bit integer",
               manifest[:steps_at] + b"\xcf" + struct.pack(">Q", 100_000) + manifest[steps_at + 5:]),
        faulty("negative", "steps below zero",
               manifest[:steps_at] + b"\xd2" + struct.pack(">i", -1) + manifest[steps_at + 5:]),
        faulty("unknown-field", "a field the format lacks",
               with_claim(lambda c: c.update(extra=1))),
        faulty("missing-field", "no model", with_claim(lambda c: c.pop("model"))),
        faulty("field-order", "fields in another order",
               with_claim(lambda c: c.update(terms=c.pop("terms")))),
        faulty("short-digest", "a seed of 31 bytes",
               with_claim(lambda c: c["terms"].update(seed=training_seed[:31]))),
        faulty("other-numerics", "numerics the format lacks",
               with_claim(lambda c: c["terms"]["recipe"].update(numerics="magic"))),
        faulty("other-format", "a version this is not",
               with_claim(lambda c: c["terms"].update(format="pol/v2"))),
        faulty("short-key", "a key of 32 bytes",
               with_claim(lambda c: c["terms"].update(key=key[:32]))),
        faulty("uncompressed-key", "a key that begins with 4",
               with_claim(lambda c: c["terms"].update(key=b"\x04" + key[1:]))),
        faulty("other-key", "a seed that another key gave",
               with_claim(lambda c: c["terms"].update(key=b"\x03" + key[1:]))),
        faulty("other-start", "a start the format lacks",
               with_claim(lambda c: c["terms"].update(start="anywhere"))),
        faulty("float-32", "a learning rate in single precision",
               manifest.replace(b"\xcb" + struct.pack(">d", 0.1), b"\xca" + struct.pack(">f", 0.1), 1)),
        faulty("huge-list", "a list of four billion checkpoints",
               manifest[:manifest.rindex(pack("checkpoints"))] + pack("checkpoints") + b"\xdd\xff\xff\xff\xff"),
        faulty("deep", "nested beyond any type", b"\x91" * 5000),
    ]})
