"""Texts in a list of allergies that mean "no known allergies", in the languages of the clinic.

The whole text must be one of them. "No known allergies except latex" names an allergen, so it stays an entry.
A statement about food or latex alone does not tell whether a medicine is tolerated, so it stays an entry too.
"""

from __future__ import annotations

from typing import Final

from services.patients.name_matching import split_words
from services.search_key import search_key

_ENGLISH = """
    NKA, NKDA, NKMA, nil, nil known, nil known allergies, nil known allergy, nil known drug allergies,
    nil known drug allergy, nil allergies, no, none, none known, none reported, nothing, nothing known,
    allergies none, allergy none, drug allergies none, NKDA confirmed, denies, denies allergies,
    denies allergy, denies drug allergies, denies any allergies, denies any drug allergies,
    denies known allergies, denies known drug allergies, no allergies, no allergy, no allergies known,
    no allergy known, no allergies reported, no reported allergies, no allergies to drugs,
    no allergies to medicines, no allergies to medication, no allergies to medications, no drug allergies,
    no drug allergy, no drug allergies known, no drug allergy known, no medication allergies,
    no medicine allergies, no known allergies, no known allergy, no known drug allergies,
    no known drug allergy, no known medication allergies, no known medicine allergies,
    no known allergies to drugs, no known allergies to medicines, no known allergies to medication,
    no history of allergy, no history of allergies, no history of drug allergy,
    no history of drug allergies, not allergic, not allergic to anything, not allergic to any medicine,
    not allergic to any medicines, not allergic to any drugs
"""
_SWAHILI = """
    hakuna, hakuna mzio, hakuna mzio wowote, hakuna mzio unaojulikana, hakuna mzio wa dawa,
    hakuna mzio wa dawa yoyote, hana mzio, hana mzio wowote, hana mzio wa dawa, hana mzio wa dawa yoyote,
    hakuna aleji, hana aleji, hakuna allergy, hana allergy
"""
_FRENCH = """
    aucun, aucune, aucune connue, aucune allergie, aucune allergie connue, aucune allergie signalée,
    aucune allergie rapportée, aucune allergie médicamenteuse, aucune allergie médicamenteuse connue,
    aucune allergie aux médicaments, néant, non allergique, pas allergique, pas d'allergie, pas d'allergies,
    pas d'allergie connue, pas d'allergies connues, pas d'allergie médicamenteuse,
    pas d'allergie médicamenteuse connue, sans allergie, sans allergie connue
"""
_GERMAN = """
    keine, keine bekannt, keine bekannten, keine Allergie, keine Allergien, keine Allergie bekannt,
    keine Allergien bekannt, keine bekannten Allergien, keine bekannte Allergie, keine Arzneimittelallergie,
    keine Arzneimittelallergien, keine Arzneimittelallergien bekannt, keine bekannten Arzneimittelallergien,
    keine Medikamentenallergie, keine Medikamentenallergien, keine Medikamentenallergien bekannt,
    keine bekannten Medikamentenallergien, nicht allergisch
"""
_SPANISH = """
    ninguna, ninguno, ninguna conocida, ninguna alergia, ninguna alergia conocida, NAMC, no alergias,
    no alergias conocidas, no alergias medicamentosas, no alergias medicamentosas conocidas,
    no refiere alergias, no tiene alergias, no conocidas, niega alergia, niega alergias,
    niega alergias conocidas, niega alergias medicamentosas, niega alergia a medicamentos,
    sin alergia, sin alergias, sin alergia conocida, sin alergias conocidas,
    sin alergias medicamentosas, sin alergias medicamentosas conocidas
"""
_PORTUGUESE = """
    nenhuma, nenhum, nenhuma conhecida, nenhuma alergia, nenhuma alergia conhecida, não tem alergias,
    nega alergia, nega alergias, nega alergias medicamentosas, nega alergia a medicamentos, sem alergia,
    sem alergias, sem alergia conhecida, sem alergias conhecidas, sem alergias medicamentosas,
    sem alergias medicamentosas conhecidas
"""
_ARABIC = """
    لا يوجد, لا توجد, لا حساسية, لا يوجد حساسية, لا توجد حساسية, لا يوجد أي حساسية, لا توجد أي حساسية,
    لا يوجد حساسية معروفة, لا توجد حساسية معروفة, لا يوجد حساسية للأدوية, لا توجد حساسية للأدوية,
    لا يوجد حساسية دوائية, لا توجد حساسية دوائية, لا توجد حساسية دوائية معروفة, ليس لديه حساسية,
    ليس لديها حساسية, لا يعاني من حساسية, لا تعاني من حساسية, بدون حساسية
"""


_QUESTION_MARKS: Final = "?؟"


def _key(text: str) -> str:
    """Return a text without case, accents, blanks and punctuation."""
    return "".join(split_words(search_key(text)))


_DENIALS: Final = frozenset(
    _key(text)
    for texts in (_ENGLISH, _SWAHILI, _FRENCH, _GERMAN, _SPANISH, _PORTUGUESE, _ARABIC)
    for text in texts.split(",")
)


def means_none_known(text: str) -> bool:
    """Return True if the whole text means that no allergy is known. A question does not: "None?"."""
    return _key(text) in _DENIALS and not any(mark in text for mark in _QUESTION_MARKS)
