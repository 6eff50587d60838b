//! What the profiles define, as computed by the portable path on a CPU.

use crate::profile::Profile;

pub(super) fn of(profile: Profile) -> &'static [[u8; 32]; 17] {
    match profile {
        Profile::UnfusedV1 => &UNFUSED_V1,
        Profile::FmaV1 => &FMA_V1,
    }
}

const UNFUSED_V1: [[u8; 32]; 17] = [
    hex("840ea924e4a3ecb0b867b275e1051e4fd652f9699139da02f4f6517539eec1e8"), // transfer
    hex("1e5b454ce3d698d72e75ced611c34ab52ed29f13fc20ffbcb722303c3915b69e"), // add
    hex("338d68b90e25fe02015c0f40863a74138c94a12c34ed3fb39c8fb9c31489afad"), // multiply
    hex("898eec01fbef68cb30ec3ca6b8bb9fefff2a86419386dc2ba3ea794e27dc2fb8"), // blend
    hex("ed3848978ede0a4663bed8ba7a49bbe88b1746da0352133288156f82dae0ed67"), // relu
    hex("bebeb81a4566247569d3f06e0167b88332016d02652d04f63bd765b28fd9ed96"), // linear
    hex("4a5cdd98c18b6d653e0324cfdd59247d8e9b597c3b4ef665208168d5f5930683"), // conv2d
    hex("a9cb128d6172eaa4d55e812958e4722461f293a6f292f0f4f3ef4889796b8f0d"), // conv2d_winograd
    hex("445af59749a5bb2319d7dd9e151f92cce254be36b2ffb98de48da9356434eb6e"), // add_bias
    hex("3a55d99c26577ea756870be964df67c28789531692c516334b3dd3bffd20f5fc"), // statistics
    hex("5d49f2d03d1e71c744b43132b8738eb3b15634f29c69146e885fdac00722daf5"), // batch_norm
    hex("8470870635fcc266d69137f380bf2c7ae385a7ec1a5d74e091de646aefb171ed"), // batch_norm_fixed
    hex("2c3f354129c643ef8cfffd3a91b2078f492731a8fb424bf552847c724aa48235"), // max_pool
    hex("af1664c663585e82fc158d1eb35c42f73202ad5023554a368d42771c6a96aca9"), // average_pool
    hex("6d2ef4de0adeb1df86711b0414befe26613e5443b5ec108403f1ad38aab3be08"), // shortcut
    hex("fc85a4e60a6b9df40d7888c3b1c51ecfec460b199dea51e21851acc8707b1142"), // cross_entropy
    hex("6b55594ce1553ed7ab01cab124888d3e287e7192c4512089ecf108c0fb51a183"), // adam_step
];

const FMA_V1: [[u8; 32]; 17] = [
    hex("840ea924e4a3ecb0b867b275e1051e4fd652f9699139da02f4f6517539eec1e8"), // transfer
    hex("1e5b454ce3d698d72e75ced611c34ab52ed29f13fc20ffbcb722303c3915b69e"), // add
    hex("338d68b90e25fe02015c0f40863a74138c94a12c34ed3fb39c8fb9c31489afad"), // multiply
    hex("0ffc362ab4e7769ff5d0c132f98bfccd4dffbee3ec6b85c5bfdd24294ad8c413"), // blend
    hex("ed3848978ede0a4663bed8ba7a49bbe88b1746da0352133288156f82dae0ed67"), // relu
    hex("999f0f5619efcfa04eabcb00f40c262b869631d528123bf6dab2eb8cd340256a"), // linear
    hex("23a52273ef42e2935b809ffe1eaaa582075ba47470ae15441d534e857fc225e9"), // conv2d
    hex("19e94db0fe77f928712394bd8c19fd8561483e5546c872601c3ffef941208c49"), // conv2d_winograd
    hex("445af59749a5bb2319d7dd9e151f92cce254be36b2ffb98de48da9356434eb6e"), // add_bias
    hex("6929b3de87d3f52982f4acd4d2512a9f872eef0ce35a85db165da87ae019fdc1"), // statistics
    hex("b81f881c58b7da438db820d970767f991a35a543d87e6e9875efb982116ef105"), // batch_norm
    hex("ffa475bafbfc67c1f5c7f3e0054ae5e50c01684f8c3af8a36ae0debdc6560034"), // batch_norm_fixed
    hex("2c3f354129c643ef8cfffd3a91b2078f492731a8fb424bf552847c724aa48235"), // max_pool
    hex("af1664c663585e82fc158d1eb35c42f73202ad5023554a368d42771c6a96aca9"), // average_pool
    hex("6d2ef4de0adeb1df86711b0414befe26613e5443b5ec108403f1ad38aab3be08"), // shortcut
    hex("5203b361f6fae167dcc9b54d846f15ddfbcfb60111a6355219e5c8bbcd058bca"), // cross_entropy
    hex("6b55594ce1553ed7ab01cab124888d3e287e7192c4512089ecf108c0fb51a183"), // adam_step
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
