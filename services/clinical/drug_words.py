"""The words of a medication name or a recorded allergen: which name a substance, and which do not.

Strengths, units, dose forms and salts are noise. Words such as "rash" and "severe" describe an allergy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.search_key import APOSTROPHES, search_key

# Salts and esters without an effect of their own. Procaine and salicylate are active substances, so that
# "procaine penicillin" contains two ingredients.
SALT_WORDS: Final = frozenset(
    """
    acetate acetonide acetyl adipate alafenamide anhydrous arginine aspartate axetil benzathine benzoate
    besilate besylate bicarbonate bisulfate bitartrate bromide butyrate calcium camsylate caproate carbonate
    chloride cilexetil citrate cypionate decanoate diacetate dihydrate dihydrochloride difumarate
    dimeglumine dimesylate dipivoxil dipotassium dipropionate disodium disoproxil edisylate enanthate
    epolamine erbumine estolate esylate etabonate etexilate ethanolate ethylsuccinate fosamil fumarate
    furoate gluceptate gluconate hcl hemifumarate hemihydrate heptahydrate hexacetonide hexahydrate
    hippurate hyclate hydrate hydrobromide hydrochloride hydrocholoride hydrogen iodide isethionate
    kamedoxomil lactate lactobionate lauroxil magnesium malate maleate medoxomil meglumine mesilate mesylate
    methylsulfate mofetil monohydrate monosodium napsylate nitrate octanoate olamine oxalate palmitate
    pamoate pentahydrate phosphate picrate pidolate pivalate pivoxil polistirex porcine bovine potassium
    probutate propanediol propionate proxetil pyrophosphate saccharate s-malate sodium solvate
    stearate strontium succinate sulfate sulphate tannate tartrate tosylate trifenatate triflutate
    trihydrate trometamol tromethamine undecanoate valerate xinafoate zinc
    """.split()
)
_UNIT_WORDS = frozenset(
    """
    mg mcg ug μg ng g gm kg ml l dl iu unt unit units u meq mmol mol mci hr hrs hour hours day days week
    weeks month actuat actuation dose doses puff puffs spray drop drops per percent w v x every daily once
    twice od bd tds qds qid tid bid po stat nocte mane
    hs qhs ac pc qd q4h q6h q8h q12h hourly hrly mls mu miu mega tsp am pm morning night bedtime
    weekly monthly
    """.split()
)
_FORM_WORDS = frozenset(
    """
    tablet tablets tab tabs capsule capsules cap caps caplet caplets pill pills oral orally solution
    suspension syrup elixir liquid linctus drink powder granules sachet sachets lozenge lozenges troche
    gum injection injections injectable inj infusion infusions patches intravenous iv im sc subcutaneous
    intramuscular vial ampoule ampule ampul syringe prefilled pen cartridge autoinjector auto injector kit
    topical cream ointment gel lotion foam paste shampoo patch transdermal film strip suppository
    suppositories rectal vaginal ring intrauterine system implant ophthalmic otic nasal eye ear inhaler
    inhalation inhalant inhaled metered aerosol nebuliser nebulizer diskus turbuhaler hfa dry mucosal
    sublingual buccal chewable dispersible effervescent orodisintegrating disintegrating odt soluble
    coated enteric ec extended delayed modified sustained controlled prolonged immediate release er xr sr
    cr mr la dr xl retard slow pack starter maintenance pediatric paediatric adult children infant generic
    brand product form strength drug abuse deterrent package usp bp ph eur preservative free sterile in of
    for the a an as needed prn only and with
    accuhaler ds ellipta evohaler modulite nebules neonatal nexthaler respimat rotacaps syp syr turbohaler
    t susp soln sol neb nebs nebulised nebulized supp supps pess pessary pessaries paint fluid fluids drip
    amp amps ampoules vials bottle tube pr depot mouthwash gargle mix mixture i
    """.split()
)
_ALLERGY_WORDS = frozenset(
    """
    allergy allergies allergic allergen hypersensitivity hypersensitive sensitivity sensitive intolerance
    intolerant reaction reactions adverse anaphylaxis anaphylactic anaphylactoid angioedema rash hives
    urticaria itching swelling nausea vomiting cough severe mild moderate unknown known suspected possible
    confirmed history hx h o patient is has had to from by after due on disorder finding substance
    situation propensity class group type types based medicine medicines medication medications drug drugs
    antibiotic antibiotics agent agents compound compounds preparation preparations containing product
    products derivative derivatives family all any other reported documented recorded stated at caused
    causes shock or bronchospasm wheeze wheezing dyspnea dyspnoea diarrhea diarrhoea headache headaches
    myalgia edema oedema swollen lip lips face facial tongue throat pruritus itchy blisters blistering
    erythema jaundice collapse dizziness palpitations flushing upset stomach syndrome sjs ten dress
    stevens johnson apnea apnoea following induced childhood child pt nos during while when taking given
    some several many most various certain multiple few
    allergie allergique allergisch alergia alergias alergico alergica mzio
    """.split()
)
# These name an allergen unless they describe another name: "penicillin antibiotics" is one class, and
# "penicillin and other antibiotics" is all of them.
_GENERAL_MEDICINES = frozenset({"antibiotic", "antibiotics"})
# They separate two allergens as "and" does: "antibiotics except penicillin".
_DIVIDING_WORDS = frozenset(
    {"but", "except", "excepting", "excluding", "not", "than", "apart", "including", "plus"}
)
_DESCRIPTIONS = _ALLERGY_WORDS - _GENERAL_MEDICINES
# A cough is a reaction, but "cough mixture" is a medicine.
_COUGH_MEDICINES = frozenset(
    "medicine medicines mixture mixtures suppressant suppressants syrup syrups".split()
)
# After a trade name, these words may name a further ingredient: amlodipine in "Concor AM", diphenhydramine in
# "Advil PM", telmisartan in "Concor T", levosulpiride in "Pantocid L", a muscle relaxant in "Zerodol MR".
_SUFFIXES = frozenset({"a", "am", "g", "l", "mr", "pm", "t"})
# After a strength, too: "Telma 40 AM". But "5 l" is a volume.
_SUFFIX_AFTER_STRENGTH = re.compile(r"\d+ ?(am|mr|pm)")
# A trade name has rarely a salt, so that a metal after it may be a further ingredient: "Lasix potassium".
_METALS = frozenset({"calcium", "magnesium", "potassium", "zinc"})
GENERAL_WORDS = SALT_WORDS | _UNIT_WORDS | _FORM_WORDS | _ALLERGY_WORDS
_SEPARATORS = frozenset({"/", "+", ",", ";", "&", "and", "with"})
# A strength may follow a name without a space: "Amoxil500mg". A shorter part belongs to the name: "MgSO4".
_LEXEME = re.compile(r"[^\W\d_]{4,}(?=\d{2})|[^\W_]+|[/+,;&]")
NAMES_LIKE_STRENGTHS = frozenset({"3hp", "3tc", "4fdc", "5fu", "6mp"})
# "x5 days", "24h"; RxNorm puts NDA numbers before names. In "Telma 40H" the letter names an ingredient.
_NUMERIC = re.compile(r"x\d+|nda\d+|(4|6|8|12|24|48|72)h")
_STRENGTH = re.compile(r"\d+(?P<unit>[^\W\d]*)\d*(?P<form>[^\W\d]*)")  # "500mg", "28tabs", "250mg5ml"
_AFTER_DIGIT = frozenset({"", "x", "st", "nd", "rd", "th"}) | _UNIT_WORDS | _FORM_WORDS
_APOSTROPHE = re.compile(f"[{APOSTROPHES}]")
_BRITISH_STEMS: Final = (("sulph", "sulf"), ("anaesth", "anesth"), ("oestr", "estr"), ("haem", "hem"))


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a name, as a search key."""

    text: str
    after_separator: bool  # the word follows "/", ",", "and" ..., or it is the first one


def fold(text: str) -> str:
    """Return the search keys of the words of a text. A long text is not cut.

    The table separates the "s" of "St John's wort", so an apostrophe separates words.
    """
    return " ".join(search_key(part) for part in _APOSTROPHE.sub(" ", text).split())


def split_words(text: str) -> list[Word]:
    """Return the words of a drug name as search keys, without punctuation and in American spelling."""
    words: list[Word] = []
    after_separator = True
    key = fold(text)
    for british, american in _BRITISH_STEMS:
        key = key.replace(british, american)
    for word in _LEXEME.findall(key):
        if word in _SEPARATORS:
            after_separator = True
        else:
            words.append(Word(word, after_separator))
            after_separator = False
    return words


def normalize(text: str) -> str:
    """Return a name in the form that the table uses as a key."""
    return " ".join(word.text for word in split_words(text))


def allergen_key(text: str) -> str:
    """Return a recorded allergen in the form that the table uses as a key: without "allergy", "drug" ...

    An allergen that consists of such words keeps them: "antibiotic".
    """
    return " ".join(word.text for word in allergen_words(text)) or normalize(text)


def allergen_words(text: str) -> list[Word]:
    """Return the words of a recorded allergen, without those that describe an allergy."""
    words = split_words(text)
    parts: list[list[Word]] = [[]]
    for number, word in enumerate(words):
        if word.after_separator or word.text in _DIVIDING_WORDS:
            parts.append([])
        is_description = word.text in _DESCRIPTIONS
        if not is_description or _is_cough_medicine(words, number):
            parts[-1].append(word)
    return [word for part in parts for word in _without_descriptions(part)]


def _is_cough_medicine(words: list[Word], number: int) -> bool:
    """Return True for each of the two words of "cough mixture"."""
    pairs = (words[max(0, number - 1) : number + 1], words[number : number + 2])
    return any(
        len(pair) == 2 and pair[0].text == "cough" and pair[1].text in _COUGH_MEDICINES for pair in pairs
    )


def _without_descriptions(part: list[Word]) -> list[Word]:
    """Return the words between two separators, without "antibiotic" if another word is the name."""
    names = [word for word in part if word.text not in _GENERAL_MEDICINES | _DIVIDING_WORDS]
    return [word for word in part if not names or word.text not in _GENERAL_MEDICINES]


def is_noise(word: str) -> bool:
    """Return True for a strength, unit, dose form or salt. These words do not name an active ingredient."""
    return (
        word in SALT_WORDS
        or word in _UNIT_WORDS
        or word in _FORM_WORDS
        or (word not in NAMES_LIKE_STRENGTHS and _is_strength(word))
    )


def _is_strength(word: str) -> bool:
    """Return True for digits with a unit or form. Other letters may name a substance: "5ASA"."""
    if _NUMERIC.fullmatch(word):
        return True
    match = _STRENGTH.fullmatch(word)
    return match is not None and match["unit"] in _AFTER_DIGIT and match["form"] in _AFTER_DIGIT


def is_general_word(word: str) -> bool:
    """Return True for a word that does not name a substance by itself, such as "tablet" or "rash"."""
    return word in GENERAL_WORDS


def suffixes(following: Sequence[Word]) -> list[str]:
    """Return the words after a trade name that look like a time or a salt, but may name an ingredient.

    `following` are the words that are skipped otherwise.
    """
    texts = [word.text for word in following]
    metals = [text for text in texts if text in _METALS]
    if texts and texts[0] in _SUFFIXES:
        return texts[:1] + metals
    for count in (1, 2):  # "40h", "40 am"
        if _SUFFIX_AFTER_STRENGTH.fullmatch(" ".join(texts[:count])):
            return texts[count - 1 : count] + metals
    return metals
