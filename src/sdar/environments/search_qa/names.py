"""The words of the closed world. Each name is a new pair of known words."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Abel Alma Anton Berta Bruno Carl Clara Dora Edgar Edith Elsa Emil Erik Felix Flora Frida Georg Greta Hugo Ida "
    "Ingrid Ivan Jana Jonas Karin Klara Lars Lena Leo Linda Magnus Mara Marta Max Mona Nils Nora Olga Oskar Otto Paula "
    "Petra Rita Rosa Rudolf Selma Viktor"
)
FAMILY_NAMES = _words(
    "Adler Baum Berg Birk Blom Brand Busch Dahl Eck Falk Fink Frost Gren Haas Hahn Holm Horn Jung Kamp Kern Koch Krug "
    "Lang Lind Lorenz Marsh Moor Nagel Norden Park Pohl Quist Rask Roth Sand Schell Stark Stein Strand Sund Thal Vogt "
    "Voss Wald Weber Winter Wolf Zander"
)
TOWN_FIRST = _words(
    "Alder Amber Birch Bleak Bright Cold Copper Dark Deep East Elder Elm Fair Fern Gold Green Grey High Iron Lake Low "
    "Maple North Oak Old Pine Red Silver South Stone West White"
)
TOWN_SECOND = _words(
    "Bay Bridge Brook Cliff Cross Dale Farm Field Ford Gate Glen Grove Hall Harbour Hill Market Mill Point Port Ridge "
    "Rock Spring Vale Well"
)
TITLE_FIRST = _words(
    "Hidden Silent Broken Burning Crimson Distant Empty Endless Falling Fading Final Forgotten Frozen Golden Hollow "
    "Last Lonely Lost Midnight Pale Perfect Quiet Restless Scarlet Second Secret Sleeping Solemn Stolen Sudden Velvet "
    "Wandering"
)
TITLE_SECOND = _words(
    "Angel Bell Candle Clock Crown Dancer Diary Dream Echo Empire Feather Flame Garden Guest Horizon Journey Key King "
    "Lantern Letter Mirror Mountain Orchard Promise Queen Sailor Shadow Song Star Summer Tower Voyage"
)
RIVERS = _words(
    "Alver Brenta Calder Darro Elva Farrow Garda Hasel Ister Jarra Kolme Lorna Merin Nadder Orne Pegel Quorn Rilla "
    "Sarno Tavy Ulva Varne Wensum Yarrow"
)
TRADES = _words(
    "baker barber brewer butcher carpenter clerk cook doctor driver farmer fisher gardener glazier judge lawyer miller "
    "miner nurse painter pilot potter printer tailor weaver"
)
LANGUAGES = _words(
    "Arvish Belmic Corran Dalic Endish Faric Gallan Hestic Irvan Jorish Kelmic Lurian Mossan Nervic Ostic Pellan "
    "Quarric Rennish Sorvan Tulic Umbric Vessan Wallic Yortish"
)
