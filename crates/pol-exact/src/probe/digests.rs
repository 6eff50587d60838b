//! What the profiles define, as computed by the portable path on a CPU.

use crate::profile::Profile;

pub(super) fn of(profile: Profile) -> &'static [[u8; 32]; 17] {
    match profile {
        Profile::UnfusedV2 => &UNFUSED_V2,
        Profile::FmaV2 => &FMA_V2,
    }
}

const UNFUSED_V2: [[u8; 32]; 17] = [
    hex("840ea924e4a3ecb0b867b275e1051e4fd652f9699139da02f4f6517539eec1e8"), // transfer
    hex("adff11d2434bb94cc9be11a47efa2844b63d4c7dcab7bd3ab7741cc8cbecbe07"), // add
    hex("72ff9432d2c4dcab987ffc3040f466c7e79966c796c366e18354f48da46b4ac4"), // multiply
    hex("68b63a8591106508a9cf0513416f67a0d103ca559ab06d81af5566d553dce1f0"), // blend
    hex("ff50e166151a9dfb759f45cdbd7acbce14ff9c49d4e3c15ab5a41bd1630f74d7"), // relu
    hex("1ef05a37e7b7870bb31748bf6c80ddf5eca148ae5106ab2ceb5bed435db77115"), // linear
    hex("d25d2ea0a864afa13a103828a187535ee0f3761d74eb085e581c04529028b309"), // conv2d
    hex("1a6005bbcbbbd89550d4baa4353f29bea9bc7748fce3dd65293704a6cb97fd48"), // conv2d_winograd
    hex("3c3c780e2b78016c14782d2f4a56fb4299031b0c1deb8f38c68063c57989b7d2"), // add_bias
    hex("fd3595bdd1aa8bda834e43a9f8c5a4b6c6e3ff18466c7ece94e6b5ef6024c258"), // statistics
    hex("651349f172b831ce1b181eaf5f061fcd46c9ab50b84a5cce4bb5c21b4e13b72d"), // batch_norm
    hex("79270dbec124d7b92328a05f145f5b7afb444be267c4d8a755e93805c7c7bb23"), // batch_norm_fixed
    hex("54668e6dc38cf2b2290cbb1f8209d253da6030ba093286b4de300464d82ea156"), // max_pool
    hex("035925aaf51dbf8bd5875c083f9abf4410bf3ae51a88903fb87b74043d87c072"), // average_pool
    hex("ae8bf1b9b9d9f3df75fb2597b53ce1b4138a1c0efc7be7c1229fc26309b44a23"), // shortcut
    hex("e1b1a14813faffda95b58bc2391e804c123cca85cc8a713dca8b4ddf24cfe5ab"), // cross_entropy
    hex("78d70eed0bfb544b6749d7f7c12489819e908b44c17e2841be2f36f5a6d312b0"), // adam_step
];

const FMA_V2: [[u8; 32]; 17] = [
    hex("840ea924e4a3ecb0b867b275e1051e4fd652f9699139da02f4f6517539eec1e8"), // transfer
    hex("adff11d2434bb94cc9be11a47efa2844b63d4c7dcab7bd3ab7741cc8cbecbe07"), // add
    hex("72ff9432d2c4dcab987ffc3040f466c7e79966c796c366e18354f48da46b4ac4"), // multiply
    hex("12adcb6ce030f805c861400afdd50f83febf8ef3b3b8eda487202868a458b28d"), // blend
    hex("ff50e166151a9dfb759f45cdbd7acbce14ff9c49d4e3c15ab5a41bd1630f74d7"), // relu
    hex("940b71f08d379acd695fa487cf3498d024724063f055b72a8d1b7df0723f6180"), // linear
    hex("6de0e9156da44a9ef315cf5bfb790c89d6e30b5438ae26e8160098cce477303a"), // conv2d
    hex("15b0694df1ef1b6cd513edf147d75b5a0af0d524728028bec2daee5b8712fd21"), // conv2d_winograd
    hex("3c3c780e2b78016c14782d2f4a56fb4299031b0c1deb8f38c68063c57989b7d2"), // add_bias
    hex("fd5e88a238a184125cb9e2a40430312b1706ac632777d6f921679cd416975524"), // statistics
    hex("4ae5da7e6c8d939c5d6a9c38e6c8cdd88957b17b4cd9391563be154c79464004"), // batch_norm
    hex("2310c2dac72010e5579018bfe802645f61fb9a63001e9ba96a9d09a589f32c21"), // batch_norm_fixed
    hex("54668e6dc38cf2b2290cbb1f8209d253da6030ba093286b4de300464d82ea156"), // max_pool
    hex("035925aaf51dbf8bd5875c083f9abf4410bf3ae51a88903fb87b74043d87c072"), // average_pool
    hex("ae8bf1b9b9d9f3df75fb2597b53ce1b4138a1c0efc7be7c1229fc26309b44a23"), // shortcut
    hex("78f5caf0298117158065273b58361e7ee50194d75f5d5914d385cbc84d6f54ac"), // cross_entropy
    hex("78d70eed0bfb544b6749d7f7c12489819e908b44c17e2841be2f36f5a6d312b0"), // adam_step
];

/// A digest from its 64 digits.
const fn hex(digits: &str) -> [u8; 32] {
    let digits = digits.as_bytes();
    let mut digest = [0; 32];
    let mut i = 0;
    while i < 64 {
        let digit = digits[i];
        let value = if digit < b'a' {
            digit - b'0'
        } else {
            digit - b'a' + 10
        };
        digest[i / 2] = digest[i / 2] << 4 | value;
        i += 1;
    }
    digest
}
