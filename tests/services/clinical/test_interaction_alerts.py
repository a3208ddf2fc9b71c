"""Severe interactions in the medication safety check: alerts, overrides, dispensing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.services.clinical.test_medication_safety import (
    alerts,
    dispense,
    prescribe,
    prescribed,
    record,
    visit,
)
from tests.support.clinic import Clinic

ROOT = Path(__file__).resolve().parents[3]


def interaction(clinic: Clinic, visit_id: int, *medications: str) -> dict[str, Any]:
    """Return the only alert that refuses the medications."""
    answer = prescribe(clinic, visit_id, *medications)
    (found,) = alerts(answer)
    assert found[0] == "interaction"
    (alert,) = answer.get_json()["alerts"]
    result: dict[str, Any] = alert
    return result


def test_a_contraindicated_pair_names_severity_effect_and_source(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    first = prescribed(clinic, visit_id, "Imdur 60 mg")

    alert = interaction(clinic, visit_id, "Viagra 50 mg")

    assert alert["medication"] == "Viagra 50 mg"
    assert alert["with"] == "Imdur 60 mg"
    assert alert["prescription_id"] == first["id"]
    assert alert["severity"] == "contraindicated"
    assert alert["source"] == "FDA label: Viagra, section 4.1"
    assert "sildenafil with isosorbide mononitrate: severe low blood pressure" in alert["message"]


def test_a_serious_pair_alerts_for_home_medications_in_both_orders(clinic: Clinic) -> None:
    for taking, medication in (("Coumadin", "Disprin"), ("Disprin", "Coumadin")):
        alert = interaction(clinic, visit(clinic, taking=(taking,)), medication)

        assert (alert["medication"], alert["with"]) == (medication, taking)
        assert alert["prescription_id"] is None
        assert alert["severity"] == "serious"
        assert "bleeding" in alert["message"]


def test_the_medications_of_one_prescription_are_compared(clinic: Clinic) -> None:
    alert = interaction(clinic, visit(clinic), "phenelzine", "paracetamol", "fluoxetine 20 mg")

    assert (alert["medication"], alert["with"]) == ("fluoxetine 20 mg", "phenelzine")


def test_several_interactions_of_a_pair_are_one_alert_with_every_effect(clinic: Clinic) -> None:
    alert = interaction(clinic, visit(clinic, taking=("Kaletra",)), "Seretide")

    assert alert["severity"] == "serious"
    assert "Cushing" in alert["message"]
    assert "heart rhythm" in alert["message"]
    assert alert["source"] == "MHRA Drug Safety Update, December 2016; FDA label: Norvir, section 7"


def test_an_overridden_interaction_is_stored_and_does_not_refuse_dispensing(clinic: Clinic) -> None:
    visit_id = visit(clinic, taking=("warfarin 5 mg",))
    tablets = {"name": "aspirin 75 mg", "quantity": 10}

    row = prescribed(clinic, visit_id, tablets, override_reason="mechanical valve")

    (alert,) = row["overridden_alerts"]
    assert (alert["code"], alert["severity"], alert["reason"]) == (
        "interaction",
        "serious",
        "mechanical valve",
    )
    assert alert["source"].startswith("FDA label")
    assert dispense(clinic.technician, row).status_code == 200


def test_an_interaction_with_a_later_medication_refuses_dispensing(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic), {"name": "sildenafil", "quantity": 4})
    record(clinic, row["patient_id"], medications=["GTN spray"])

    refused = dispense(clinic.technician, row)
    overridden = dispense(clinic.doctor, row, override_reason="the spray expired")

    assert alerts(refused) == [("interaction", "sildenafil", "GTN spray")]
    assert overridden.status_code == 200
    assert overridden.get_json()["overridden_alerts"][0]["severity"] == "contraindicated"


def test_alerts_of_other_kinds_have_no_severity(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic, "penicillin"), "Augmentin", override_reason="tolerated")

    assert "severity" not in row["overridden_alerts"][0]
    assert "source" not in row["overridden_alerts"][0]


def test_the_limits_of_the_check_are_documented(clinic: Clinic) -> None:
    document = clinic.admin.get("/openapi.json").get_json()
    description = document["paths"]["/prescriptions"]["post"]["description"]
    texts = [
        description,
        *((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/api.md")),
    ]

    for text in texts:
        for limit in ("interactions", "dose", "pregnancy", "kidney", "liver"):
            assert limit in text
