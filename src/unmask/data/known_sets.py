"""Published data sets that ingest understands: what they hold, on which terms, and how to get them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownSet:
    """A published data set.

    Attributes:
        name: As its authors call it.
        holds: What is in it.
        terms: Licence, or what must be agreed to.
        page: Of the project; forms and agreements are found there.
        source: What to write after ``--source``, where a program can fetch it; else empty.
        steps: What a person must do first, or instead.
    """

    name: str
    holds: str
    terms: str
    page: str
    source: str
    steps: str

    @property
    def signed(self) -> bool:
        """Whether a person must agree to terms before anything can be fetched."""
        return "signed" in self.terms or "accepted" in self.terms


KNOWN_SETS = (
    KnownSet(
        "FaceForensics++",
        "1000 videos and forgeries by Deepfakes, Face2Face, FaceSwap, NeuralTextures, FaceShifter; raw, c23, c40",
        "terms of use, signed through a form; research only",
        "https://github.com/ondyari/FaceForensics",
        "faceforensics:c23?manipulations=Deepfakes+Face2Face+FaceSwap+NeuralTextures",
        "Fill in the form on the page; set UNMASK_FACEFORENSICS_URL to the server address (up to v3) in the script "
        "that you get.",
    ),
    KnownSet(
        "DeepFakeDetection (DFD)",
        "363 videos of 28 actors and over 3000 forgeries; comes with FaceForensics++",
        "terms of use of FaceForensics++, signed through its form",
        "https://github.com/ondyari/FaceForensics",
        "faceforensics:c23?manipulations=DeepFakeDetection",
        "As for FaceForensics++. Copies on Kaggle: kaggle:OWNER/DATASET; check whether their owners may share them.",
    ),
    KnownSet(
        "Celeb-DF v1 and v2",
        "590 videos of celebrities and 5639 forgeries (v2), with an official list of test videos",
        "terms of use, signed through a form",
        "https://github.com/yuezunli/celeb-deepfakeforensics",
        "",
        "Fill in the form on the page, download what you are sent, and give the unpacked folder.",
    ),
    KnownSet(
        "DFDC",
        "about 124,000 clips of paid actors in 50 parts, each with metadata.json",
        "rules of the competition, accepted with a Kaggle account",
        "https://www.kaggle.com/c/deepfake-detection-challenge",
        "kaggle-competition:deepfake-detection-challenge",
        "Accept the rules on the page; set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY. The whole training set "
        "is large and offered part by part on the page; give the unpacked folders.",
    ),
    KnownSet(
        "DeeperForensics-1.0",
        "50,000 videos of 100 actors with 11,000 forgeries and seven kinds of damage",
        "terms of use, signed through a form",
        "https://github.com/EndlessSora/DeeperForensics-1.0",
        "",
        "Fill in the form on the page, download what you are sent, and give the unpacked folder.",
    ),
    KnownSet(
        "WaveFake",
        "over 100,000 generated speech clips by several vocoders, after LJSpeech and JSUT",
        "CC BY-SA 4.0; the real recordings come from LJSpeech and JSUT on their own terms",
        "https://github.com/RUB-SysSec/WaveFake",
        "",
        "Take the archive's address from the page and write NAME=https://…/file.zip#sha256=…; add LJSpeech as the real "
        "part.",
    ),
    KnownSet(
        "ASVspoof 2019 and 2021",
        "logical access and deepfake speech with protocol files and official splits",
        "ODC-By 1.0; read the terms that come with each archive",
        "https://www.asvspoof.org",
        "",
        "Take the archives' addresses from the page and write NAME=https://…/LA.zip; protocols are read as they are.",
    ),
)


def described() -> str:
    """Describe all known sets for people, one paragraph each."""
    paragraphs = []
    for known in KNOWN_SETS:
        lines = [
            known.name,
            f"  holds:   {known.holds}",
            f"  terms:   {known.terms}",
            f"  page:    {known.page}",
            f"  source:  {known.source or 'none that a program may fetch; a folder of your own'}",
            f"  first:   {known.steps}",
        ]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)
