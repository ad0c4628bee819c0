"""What an expert says drives the upper decisions of the Encyclopaedia of Chess Openings: one table.

Sources: the division of openings into the volumes A to E and their codes is that of the *Encyclopaedia of Chess
Openings* (ed. A. Matanović, Šahovski Informator, Belgrade, 1974 and later editions); codes of families are those of the
tables of lichess. The words, and the choice of one driving factor for each branch, are ours: they are the moves that
define the branch. The table was written before any attribution of a model had been computed, and is not fitted to any.

A line is: node, branch, factor, direction, source, reason. Several lines for one branch are alternatives: volumes hold
openings that have come there in different ways.
"""

from __future__ import annotations

from treesearch.decisions.expert import ExpertRule
from treesearch.taxonomy import ROOT

VOLUMES = {
    "A": "ECO A: flank openings, and 1. d4 answered neither by d5 nor by the main Indian defences",
    "B": "ECO B: semi-open games, 1. e4 answered neither by e5 nor by e6",
    "C": "ECO C: open games, 1. e4 e5, and the French, 1. e4 e6",
    "D": "ECO D: closed and semi-closed games, 1. d4 d5, and the Grünfeld, where d5 follows",
    "E": "ECO E: Indian defences, 1. d4 Nf6 2. c4 with e6 or g6",
}

# volume, factor, reason; a rise of the factor speaks for the branch (+1) everywhere in this table
VOLUME_RULES = (
    ("A", "White c-pawn", "the English, a third of the volume, is c4 without a centre pawn"),
    ("A", "White f-pawn", "Bird's opening is f4"),
    ("A", "Black f-pawn", "the Dutch is f5 against d4"),
    ("A", "Black c-pawn", "the Benoni and the Benko are c5 against d4"),
    ("A", "White wing pawns", "irregular first moves are those of wing pawns"),
    ("A", "White knights", "the Réti and Zukertort's opening are Nf3"),
    ("B", "White e-pawn", "semi-open games begin with e4"),
    ("B", "Black c-pawn", "against e4 the Sicilian is c5, the Caro-Kann c6"),
    ("C", "Black e-pawn", "open games are e5 against e4, the French is e6"),
    ("D", "Black d-pawn", "Black puts a pawn on d5 against d4"),
    ("E", "Black knights", "Indian defences hold the centre with Nf6 in place of a pawn"),
    ("E", "Black king's fianchetto", "the King's Indian has g6 and Bg7 without d5"),
)

# volume, family, factor, codes, reason
FAMILY_RULES = (
    ("A", "English Opening", "White c-pawn", "A10-A39", "c4"),
    ("A", "Dutch Defense", "Black f-pawn", "A80-A99", "f5"),
    ("A", "Benoni Defense", "Black c-pawn", "A43-A79", "c5 against d4"),
    ("A", "Bird Opening", "White f-pawn", "A02-A03", "f4"),
    ("A", "Polish Opening", "White wing pawns", "A00", "b4"),
    ("A", "Grob Opening", "White wing pawns", "A00", "g4"),
    ("A", "Van Geet Opening", "White knights", "A00", "Nc3"),
    ("A", "Réti Opening", "White knights", "A09-A14", "Nf3, with c4 against d5"),
    ("A", "Zukertort Opening", "White knights", "A04-A09", "Nf3"),
    ("A", "Hungarian Opening", "White king's fianchetto", "A00", "g3"),
    ("A", "King's Indian Attack", "White king's fianchetto", "A05-A08", "g3 and Bg2"),
    ("A", "Nimzo-Larsen Attack", "White queen's fianchetto", "A01", "b3 and Bb2"),
    ("A", "Trompowsky Attack", "White bishops", "A45", "Bg5"),
    ("A", "Old Indian Defense", "Black d-pawn", "A53-A55", "d6 behind Nf6"),
    ("A", "Modern Defense", "Black king's fianchetto", "A42", "g6 and Bg7"),
    ("A", "Benko Gambit Accepted", "Black wing pawns", "A57-A59", "b5 and a6"),
    ("B", "Sicilian Defense", "Black c-pawn", "B20-B99", "c5 against e4"),
    ("B", "Caro-Kann Defense", "Black c-pawn", "B10-B19", "c6, then d5"),
    ("B", "Scandinavian Defense", "Black d-pawn", "B01", "d5 at once"),
    ("B", "Alekhine Defense", "Black knights", "B02-B05", "Nf6 at once"),
    ("B", "Nimzowitsch Defense", "Black knights", "B00", "Nc6 at once"),
    ("B", "Pirc Defense", "Black king's fianchetto", "B07-B09", "g6 and Bg7 behind d6"),
    ("B", "Modern Defense", "Black king's fianchetto", "B06", "g6 and Bg7 before Nf6"),
    ("B", "Pterodactyl Defense", "Black king's fianchetto", "B06", "g6 and Bg7, then the queen to a5"),
    ("B", "Pterodactyl Defense", "queens", "B06", "g6 and Bg7, then the queen to a5"),
    ("C", "French Defense", "Black e-pawn", "C00-C19", "e6, then d5"),
    ("C", "French Defense", "Black d-pawn", "C00-C19", "e6, then d5"),
    ("C", "Ruy Lopez", "White bishops", "C60-C99", "Bb5"),
    ("C", "Italian Game", "White bishops", "C50-C59", "Bc4"),
    ("C", "Bishop's Opening", "White bishops", "C23-C24", "Bc4 before the knight"),
    ("C", "King's Gambit Accepted", "White f-pawn", "C33-C39", "f4, which Black takes: a pawn is given"),
    ("C", "King's Gambit Accepted", "material", "C33-C39", "f4, which Black takes: a pawn is given"),
    ("C", "King's Gambit Declined", "White f-pawn", "C30-C32", "f4, which Black lets stand"),
    ("C", "Scotch Game", "White d-pawn", "C44-C45", "d4, and the centre opens"),
    ("C", "Scotch Game", "centre", "C44-C45", "d4, and the centre opens"),
    ("C", "Center Game", "White d-pawn", "C21-C22", "d4 at once, and the centre opens"),
    ("C", "Center Game", "centre", "C21-C22", "d4 at once, and the centre opens"),
    ("C", "Petrov's Defense", "Black knights", "C42-C43", "Nf6 against Nf3"),
    ("C", "Four Knights Game", "White knights", "C47-C49", "four knights out"),
    ("C", "Four Knights Game", "Black knights", "C47-C49", "four knights out"),
    ("C", "Philidor Defense", "Black d-pawn", "C41", "d6"),
    ("C", "Vienna Game", "White knights", "C25-C29", "Nc3"),
    ("C", "Latvian Gambit", "Black f-pawn", "C40", "f5"),
    ("C", "Ponziani Opening", "White c-pawn", "C44", "c3"),
    ("D", "Queen's Gambit Declined", "Black e-pawn", "D30-D69", "e6 holds d5"),
    ("D", "Queen's Gambit Accepted", "Black d-pawn", "D20-D29", "d5 takes c4: Black has no d-pawn, White a pawn less"),
    ("D", "Queen's Gambit Accepted", "material", "D20-D29", "d5 takes c4: Black has no d-pawn, White a pawn less"),
    ("D", "Slav Defense", "Black c-pawn", "D10-D19", "c6 holds d5"),
    ("D", "Semi-Slav Defense", "Black c-pawn", "D43-D49", "c6 and e6 hold d5"),
    ("D", "Semi-Slav Defense", "Black e-pawn", "D43-D49", "c6 and e6 hold d5"),
    ("D", "Tarrasch Defense", "Black c-pawn", "D32-D34", "c5 against e6 and d5"),
    ("D", "Grünfeld Defense", "Black king's fianchetto", "D80-D99", "g6 and Bg7 behind d5"),
    ("D", "Neo-Grünfeld Defense", "Black king's fianchetto", "D70-D79", "g6 and d5, White too with g3"),
    ("D", "Neo-Grünfeld Defense", "White king's fianchetto", "D70-D79", "g6 and d5, White too with g3"),
    ("D", "Blackmar-Diemer Gambit", "White e-pawn", "D00", "e4 is given"),
    ("D", "Blackmar-Diemer Gambit", "material", "D00", "e4 is given"),
    ("D", "Blackmar-Diemer Gambit Accepted", "material", "D00", "e4 is given and f3 after it"),
    ("D", "Blackmar-Diemer Gambit Accepted", "White f-pawn", "D00", "e4 is given and f3 after it"),
    ("E", "King's Indian Defense", "Black king's fianchetto", "E60-E99", "g6 and Bg7"),
    ("E", "Nimzo-Indian Defense", "Black bishops", "E20-E59", "Bb4 against Nc3"),
    ("E", "Bogo-Indian Defense", "Black bishops", "E11", "Bb4 with check"),
    ("E", "Queen's Indian Defense", "Black queen's fianchetto", "E12-E19", "b6, then Bb7 or Ba6"),
    ("E", "Catalan Opening", "White king's fianchetto", "E00-E09", "g3 and Bg2"),
)


def class_name(volume: str, family: str) -> str:
    """The name of a class: a family within a volume."""
    return f"{volume}: {family}"


def expert_rules() -> tuple[ExpertRule, ...]:
    """All rules of the table, those of the volumes first."""
    volumes = [
        ExpertRule(ROOT, volume, factor, +1, f"{VOLUMES[volume]}; {reason}") for volume, factor, reason in VOLUME_RULES
    ]
    families = [
        ExpertRule(volume, class_name(volume, family), factor, +1, f"ECO {codes}: {reason}")
        for volume, family, factor, codes, reason in FAMILY_RULES
    ]
    return (*volumes, *families)
