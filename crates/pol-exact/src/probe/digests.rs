//! What the profiles define, as computed by the portable path on a CPU.

use crate::profile::Profile;

pub(super) fn of(profile: Profile) -> &'static [[u8; 32]; 16] {
    match profile {
        Profile::UnfusedV2 => &UNFUSED_V2,
        Profile::FmaV2 => &FMA_V2,
    }
}

const UNFUSED_V2: [[u8; 32]; 16] = [
    hex("840ea924e4a3ecb0b867b275e1051e4fd652f9699139da02f4f6517539eec1e8"), // transfer
    hex("adff11d2434bb94cc9be11a47efa2844b63d4c7dcab7bd3ab7741cc8cbecbe07"), // add
    hex("72ff9432d2c4dcab987ffc3040f466c7e79966c796c366e18354f48da46b4ac4"), // multiply
    hex("ff50e166151a9dfb759f45cdbd7acbce14ff9c49d4e3c15ab5a41bd1630f74d7"), // relu
    hex("1ef05a37e7b7870bb31748bf6c80ddf5eca148ae5106ab2ceb5bed435db77115"), // linear
    hex("d25d2ea0a864afa13a103828a187535ee0f3761d74eb085e581c04529028b309"), // conv2d
    hex("1a6005bbcbbbd89550d4baa4353f29bea9bc7748fce3dd65293704a6cb97fd48"), // conv2d_winograd
    hex("3c3c780e2b78016c14782d2f4a56fb4299031b0c1deb8f38c68063c57989b7d2"), // add_bias
    hex("df8b6c6bbdaeb0d8f99536ed5d894559109c75e5e57f314f1bd5bd55b606530d"), // batch_norm
    hex("32c17cc8b00aca53e01e55c84bf51e0bab4b71aa5406789490a9ba81aea59682"), // batch_norm_fixed
    hex("54668e6dc38cf2b2290cbb1f8209d253da6030ba093286b4de300464d82ea156"), // max_pool
    hex("035925aaf51dbf8bd5875c083f9abf4410bf3ae51a88903fb87b74043d87c072"), // average_pool
    hex("ae8bf1b9b9d9f3df75fb2597b53ce1b4138a1c0efc7be7c1229fc26309b44a23"), // shortcut
    hex("e1b1a14813faffda95b58bc2391e804c123cca85cc8a713dca8b4ddf24cfe5ab"), // cross_entropy
    hex("44f7851646a95d1a3eb57681ef7e16de21230ac27617fb494a274e25bb847974"), // sgd
    hex("40e7db4edf48dbef6fa8488e968a1d4602d762ddf202c419f1b1ef161c4fa6b2"), // adam
];

const FMA_V2: [[u8; 32]; 16] = [
    hex("840ea924e4a3ecb0b867b275e1051e4fd652f9699139da02f4f6517539eec1e8"), // transfer
    hex("adff11d2434bb94cc9be11a47efa2844b63d4c7dcab7bd3ab7741cc8cbecbe07"), // add
    hex("72ff9432d2c4dcab987ffc3040f466c7e79966c796c366e18354f48da46b4ac4"), // multiply
    hex("ff50e166151a9dfb759f45cdbd7acbce14ff9c49d4e3c15ab5a41bd1630f74d7"), // relu
    hex("940b71f08d379acd695fa487cf3498d024724063f055b72a8d1b7df0723f6180"), // linear
    hex("6de0e9156da44a9ef315cf5bfb790c89d6e30b5438ae26e8160098cce477303a"), // conv2d
    hex("15b0694df1ef1b6cd513edf147d75b5a0af0d524728028bec2daee5b8712fd21"), // conv2d_winograd
    hex("3c3c780e2b78016c14782d2f4a56fb4299031b0c1deb8f38c68063c57989b7d2"), // add_bias
    hex("271b5eadc93388df5a6881a055b4400b0cba62b9d75d1ddba78e5ab794d626c7"), // batch_norm
    hex("7c9de004904c459564e757bebd8fc1678377301c03587e4146533f09bf370392"), // batch_norm_fixed
    hex("54668e6dc38cf2b2290cbb1f8209d253da6030ba093286b4de300464d82ea156"), // max_pool
    hex("035925aaf51dbf8bd5875c083f9abf4410bf3ae51a88903fb87b74043d87c072"), // average_pool
    hex("ae8bf1b9b9d9f3df75fb2597b53ce1b4138a1c0efc7be7c1229fc26309b44a23"), // shortcut
    hex("78f5caf0298117158065273b58361e7ee50194d75f5d5914d385cbc84d6f54ac"), // cross_entropy
    hex("f90ab4c90e4383316df6242ba924936840a3443342c043144854f9c8df3c66d5"), // sgd
    hex("4d82fc9dc49f7b7c06ed5ea77fac874d89fd61c51ae561b72d58a7e0138fa405"), // adam
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
