"""The MNIST family as data: where the official files are, and their checksums."""

from dataclasses import dataclass

from nin_jax.data.official import OfficialSet

FILE_NAMES: tuple[str, ...] = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
DIGIT_NAMES = tuple("0123456789")


def md5_table(*md5: str) -> dict[str, str]:
    """Return the MD5 of each file by its name, given in the order of `FILE_NAMES`."""
    return dict(zip(FILE_NAMES, md5, strict=True))


@dataclass(frozen=True, kw_only=True)
class IdxSet(OfficialSet):
    """A dataset of four packed IDX files, which are also known by their contents."""

    limit: int = 64 * 2**20  # the largest official file holds 47,040,016 bytes, unpacked
    class_names: tuple[str, ...]
    contents_md5: dict[str, str]  # of the files unpacked, by the packed names; empty if not known


# CONTRIBUTING.md says what else a new dataset needs.
IDX_SETS = {
    "fashion_mnist": IdxSet(
        title="Fashion-MNIST",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        folder="fashion-mnist",
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        md5=md5_table(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        contents_md5=md5_table(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    "mnist": IdxSet(
        title="MNIST",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        folder="mnist",
        class_names=DIGIT_NAMES,
        md5=md5_table(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        contents_md5=md5_table(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "kmnist": IdxSet(
        title="KMNIST",
        url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        folder="kmnist",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        md5=md5_table(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        contents_md5={},  # nobody has published them
    ),
}
