"""Drug table: the common outpatient drugs are known, each with the class that its alerts need."""

import pytest

from services.clinical import drugs

# The most prescribed outpatient drugs, by a class that each must have.
OUTPATIENT = {
    "HMG-CoA Reductase Inhibitor": "atorvastatin simvastatin rosuvastatin pravastatin lovastatin",
    "Angiotensin Converting Enzyme Inhibitor": "lisinopril enalapril benazepril ramipril quinapril captopril",
    "Angiotensin 2 Receptor Blocker": "losartan valsartan olmesartan irbesartan telmisartan candesartan",
    "beta-Adrenergic Blocker": "metoprolol atenolol carvedilol propranolol "
    "bisoprolol nebivolol labetalol timolol",
    "Dihydropyridine Calcium Channel Blocker": "amlodipine nifedipine felodipine",
    "Non-dihydropyridine Calcium Channel Blocker": "diltiazem verapamil",
    "Thiazide Diuretic": "hydrochlorothiazide chlorthalidone indapamide",
    "Loop Diuretic": "furosemide bumetanide torsemide",
    "Potassium-sparing Diuretic": "spironolactone triamterene",
    "Central alpha-2 Adrenergic Agonist": "clonidine guanfacine methyldopa",
    "Arteriolar Vasodilator": "hydralazine",
    "Nitrate Vasodilator": "nitroglycerin isosorbide_dinitrate",
    "Cardiac Glycoside": "digoxin",
    "Antiarrhythmic": "amiodarone flecainide",
    "Anticoagulant": "warfarin apixaban rivaroxaban dabigatran enoxaparin",
    "P2Y12 Platelet Inhibitor": "clopidogrel prasugrel ticagrelor",
    "Fibrate": "fenofibrate gemfibrozil",
    "Dietary Cholesterol Absorption Inhibitor": "ezetimibe",
    "Biguanide": "metformin",
    "Sulfonylurea": "glipizide glimepiride glyburide gliclazide",
    "Dipeptidyl Peptidase 4 Inhibitor": "sitagliptin linagliptin vildagliptin",
    "GLP-1 Receptor Agonist": "liraglutide dulaglutide semaglutide tirzepatide",
    "Sodium-Glucose Cotransporter 2 Inhibitor": "empagliflozin dapagliflozin canagliflozin",
    "Thiazolidinedione": "pioglitazone",
    "Insulin": "insulin_glargine",
    "Thyroid Hormone": "levothyroxine",
    "Thyroid Hormone Synthesis Inhibitor": "methimazole",
    "Proton Pump Inhibitor": "omeprazole pantoprazole esomeprazole lansoprazole rabeprazole",
    "Histamine-2 Receptor Antagonist": "famotidine ranitidine",
    "Serotonin-3 Receptor Antagonist": "ondansetron",
    "Dopamine-2 Receptor Antagonist": "metoclopramide domperidone",
    "Penicillin-class Antibacterial": "amoxicillin ampicillin dicloxacillin piperacillin flucloxacillin",
    "Cephalosporin Antibacterial": "cephalexin cefuroxime cefdinir ceftriaxone cefixime cefprozil",
    "Macrolide Antibacterial": "azithromycin clarithromycin erythromycin",
    "Fluoroquinolone Antibacterial": "ciprofloxacin levofloxacin moxifloxacin norfloxacin",
    "Tetracycline-class Antibacterial": "doxycycline minocycline tetracycline",
    "Sulfonamide Antibacterial": "sulfamethoxazole sulfadiazine",
    "Nitroimidazole Antimicrobial": "metronidazole tinidazole",
    "Lincosamide Antibacterial": "clindamycin",
    "Nitrofuran Antibacterial": "nitrofurantoin",
    "Aminoglycoside Antibacterial": "gentamicin tobramycin neomycin",
    "Azole Antifungal": "fluconazole ketoconazole clotrimazole",
    "Herpesvirus Nucleoside Analog DNA Polymerase Inhibitor": "acyclovir valacyclovir",
    "Nonsteroidal Anti-inflammatory Drug": "ibuprofen naproxen diclofenac meloxicam "
    "celecoxib indomethacin ketorolac etoricoxib aspirin",
    "Analgesic and Antipyretic": "acetaminophen",
    "Opioid Agonist": "hydrocodone oxycodone tramadol codeine morphine fentanyl methadone buprenorphine",
    "Muscle Relaxant": "cyclobenzaprine methocarbamol tizanidine baclofen",
    "Xanthine Oxidase Inhibitor": "allopurinol febuxostat",
    "Serotonin-1b and Serotonin-1d Receptor Agonist": "sumatriptan rizatriptan",
    "Serotonin Reuptake Inhibitor": "sertraline fluoxetine citalopram escitalopram paroxetine",
    "Serotonin and Norepinephrine Reuptake Inhibitor": "duloxetine venlafaxine",
    "Tricyclic Antidepressant": "amitriptyline nortriptyline imipramine",
    "Norepinephrine and Dopamine Reuptake Inhibitor": "bupropion",
    "Tetracyclic Antidepressant": "mirtazapine",
    "Benzodiazepine": "alprazolam lorazepam clonazepam diazepam temazepam",
    "Nonbenzodiazepine Hypnotic": "zolpidem eszopiclone zopiclone",
    "Atypical Antipsychotic": "quetiapine risperidone olanzapine aripiprazole",
    "Typical Antipsychotic": "haloperidol chlorpromazine",
    "Anti-epileptic Agent": "gabapentin pregabalin lamotrigine levetiracetam "
    "topiramate carbamazepine phenytoin valproate",
    "Mood Stabilizer": "lithium",
    "Central Nervous System Stimulant": "methylphenidate lisdexamfetamine amphetamine",
    "Cholinesterase Inhibitor": "donepezil",
    "Short-acting beta2-Adrenergic Agonist": "albuterol",
    "Long-acting beta2-Adrenergic Agonist": "salmeterol formoterol",
    "Long-acting Muscarinic Antagonist": "tiotropium",
    "Leukotriene Receptor Antagonist": "montelukast",
    "Corticosteroid": "prednisone prednisolone fluticasone budesonide hydrocortisone triamcinolone",
    "Histamine-1 Receptor Antagonist": "cetirizine loratadine fexofenadine "
    "diphenhydramine hydroxyzine promethazine",
    "alpha-Adrenergic Blocker": "tamsulosin doxazosin",
    "5-alpha Reductase Inhibitor": "finasteride",
    "Phosphodiesterase 5 Inhibitor": "sildenafil tadalafil",
    "Bladder Antimuscarinic": "oxybutynin tolterodine",
    "Bisphosphonate": "alendronate",
    "Estrogen": "estradiol",
    "Progestin": "medroxyprogesterone norethindrone levonorgestrel",
    "Folate Analog Metabolic Inhibitor": "methotrexate",
    "Antimalarial": "hydroxychloroquine",
    "Amide Local Anesthetic": "lidocaine",
    "Potassium Salt": "potassium_chloride",
    "Vitamin D": "cholecalciferol ergocalciferol",
    "Folate": "folic_acid",
    "Oral Iron": "ferrous_sulfate",
}


@pytest.mark.parametrize(
    ("name", "drug_class"),
    [
        (name.replace("_", " "), drug_class)
        for drug_class, names in OUTPATIENT.items()
        for name in names.split()
    ],
)
def test_a_common_outpatient_drug_is_known_with_its_class(name: str, drug_class: str) -> None:
    drug = drugs.resolve(name)

    assert drug is not None
    assert len(drug.ingredients) == 1
    assert drug.unknown_parts == ()
    assert drug_class in drug.classes
