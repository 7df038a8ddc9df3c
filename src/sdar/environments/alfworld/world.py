"""The generator's knowledge of the ALFRED world: rooms, objects, where objects fit and where they usually are.

Facts about the world are ALFRED's (``alfworld`` 0.4.2, ``gen/constants.py``: VAL_RECEPTACLE_OBJECTS,
VAL_ACTION_OBJECTS, GOALS_VALID), restricted to the types used here. The usual places are based on the initial states of
the published training games, sharpened so that knowing them helps.
"""

from __future__ import annotations

ROOMS = ("kitchen", "bedroom", "livingroom", "bathroom")

LAYOUTS: dict[str, dict[str, tuple[int, int, int]]] = {
    "kitchen": {
        "Fridge": (1, 1, 1),
        "Microwave": (1, 1, 1),
        "SinkBasin": (1, 1, 1),
        "CounterTop": (1, 2, 3),
        "CoffeeMachine": (1, 1, 1),
        "GarbageCan": (1, 1, 1),
        "StoveBurner": (1, 1, 4),
        "Cabinet": (1, 2, 13),
        "Drawer": (1, 2, 7),
        "DiningTable": (0, 1, 2),
        "Toaster": (0, 1, 1),
        "Shelf": (0, 1, 3),
    },
    "bedroom": {
        "Bed": (1, 1, 2),
        "Desk": (1, 1, 2),
        "Drawer": (2, 3, 8),
        "SideTable": (1, 2, 2),
        "Shelf": (1, 2, 6),
        "GarbageCan": (1, 1, 1),
        "Dresser": (1, 1, 2),
        "ArmChair": (0, 1, 2),
        "Safe": (0, 1, 1),
        "LaundryHamper": (0, 1, 1),
    },
    "livingroom": {
        "Sofa": (1, 1, 2),
        "CoffeeTable": (1, 1, 2),
        "ArmChair": (1, 2, 2),
        "SideTable": (1, 2, 3),
        "Drawer": (1, 2, 6),
        "Shelf": (1, 2, 6),
        "GarbageCan": (1, 1, 1),
        "Dresser": (0, 1, 1),
        "DiningTable": (0, 1, 1),
        "TVStand": (0, 1, 1),
        "Safe": (0, 1, 1),
    },
    "bathroom": {
        "SinkBasin": (1, 1, 2),
        "Toilet": (1, 1, 1),
        "BathtubBasin": (1, 1, 1),
        "CounterTop": (1, 1, 2),
        "Cabinet": (1, 2, 6),
        "Drawer": (1, 2, 6),
        "GarbageCan": (1, 1, 1),
        "ToiletPaperHanger": (1, 1, 1),
        "Shelf": (0, 1, 3),
        "TowelHolder": (0, 1, 2),
        "HandTowelHolder": (0, 1, 2),
    },
}
"""Per room and receptacle type: the minimum, the usual maximum, and the maximum in a room of the dataset's size."""

OPENABLE = frozenset({"Fridge", "Cabinet", "Microwave", "Drawer", "Safe"})

_SURFACES = ("CounterTop", "DiningTable", "SideTable", "CoffeeTable")

USUAL_PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "kitchen": {
        "Apple": ("Fridge", "CounterTop"),
        "Bread": ("CounterTop", "DiningTable"),
        "Egg": ("Fridge", "Microwave"),
        "Lettuce": ("Fridge", "CounterTop"),
        "Potato": ("Fridge", "SinkBasin"),
        "Tomato": ("Fridge", "GarbageCan"),
        "Bowl": ("Cabinet", "Fridge"),
        "Cup": ("Cabinet", "SinkBasin"),
        "Mug": ("CoffeeMachine", "Cabinet"),
        "Plate": ("Cabinet", "DiningTable"),
        "Pan": ("StoveBurner", "CounterTop"),
        "Pot": ("StoveBurner", "Cabinet"),
        "Kettle": ("StoveBurner", "Cabinet"),
        "Fork": ("Drawer", "CounterTop"),
        "Spoon": ("Drawer", "SinkBasin"),
        "Knife": ("Drawer", "CounterTop"),
        "ButterKnife": ("CounterTop", "Drawer"),
        "Spatula": ("Drawer", "SinkBasin"),
        "DishSponge": ("SinkBasin", "Drawer"),
        "SaltShaker": ("Cabinet", "Drawer"),
        "PepperShaker": ("Cabinet", "Drawer"),
        "SoapBottle": ("Cabinet", "GarbageCan"),
    },
    "bedroom": {
        "AlarmClock": ("Desk", "Shelf"),
        "Book": ("Bed", "Desk"),
        "CD": ("Drawer", "Desk"),
        "CellPhone": ("Bed", "Drawer"),
        "CreditCard": ("Drawer", "Shelf"),
        "KeyChain": ("Drawer", "Dresser"),
        "Laptop": ("Bed", "Desk"),
        "Mug": ("Desk", "Shelf"),
        "Pen": ("Desk", "Dresser"),
        "Pencil": ("Drawer", "SideTable"),
        "Pillow": ("Bed", "ArmChair"),
        "TissueBox": ("SideTable", "Shelf"),
    },
    "livingroom": {
        "Box": ("CoffeeTable", "Sofa"),
        "CreditCard": ("Sofa", "Drawer"),
        "KeyChain": ("SideTable", "Drawer"),
        "Laptop": ("Sofa", "CoffeeTable"),
        "Newspaper": ("Sofa", "CoffeeTable"),
        "Pillow": ("Sofa", "ArmChair"),
        "RemoteControl": ("CoffeeTable", "Sofa"),
        "Statue": ("Shelf", "SideTable"),
        "Vase": ("Shelf", "CoffeeTable"),
        "Watch": ("Drawer", "SideTable"),
    },
    "bathroom": {
        "Candle": ("Toilet", "CounterTop"),
        "Cloth": ("BathtubBasin", "Cabinet"),
        "SoapBar": ("BathtubBasin", "SinkBasin"),
        "SoapBottle": ("CounterTop", "Cabinet"),
        "SprayBottle": ("Cabinet", "Toilet"),
        "TissueBox": ("CounterTop", "Drawer"),
        "ToiletPaper": ("Cabinet", "Toilet"),
    },
}
"""Per room and object type: the receptacle types it is usually in, the most frequent first."""

_FOOD_PLACES = ("Fridge", "Microwave", "SinkBasin", "GarbageCan", "CounterTop", "DiningTable", "SideTable")
_SMALL_THINGS = ("Drawer", "Safe", "Dresser", "Desk", "Shelf", "Sofa", "ArmChair", *_SURFACES)

FITS: dict[str, tuple[str, ...]] = {
    "Apple": _FOOD_PLACES,
    "Bread": ("Fridge", "Microwave", "GarbageCan", "CounterTop", "DiningTable"),
    "Egg": _FOOD_PLACES,
    "Lettuce": ("Fridge", "SinkBasin", "GarbageCan", "CounterTop", "DiningTable"),
    "Potato": _FOOD_PLACES,
    "Tomato": _FOOD_PLACES,
    "Bowl": ("Cabinet", "Fridge", "Microwave", "SinkBasin", "Shelf", "Desk", "Dresser", *_SURFACES),
    "Cup": ("Cabinet", "Fridge", "Microwave", "SinkBasin", "Shelf", "Desk", "Dresser", *_SURFACES),
    "Mug": ("CoffeeMachine", "Cabinet", "Fridge", "Microwave", "SinkBasin", "Shelf", "Desk", "Dresser", *_SURFACES),
    "Plate": ("Cabinet", "Fridge", "Microwave", "SinkBasin", "Shelf", "Desk", "Dresser", *_SURFACES),
    "Pan": ("StoveBurner", "Cabinet", "Fridge", "SinkBasin", "CounterTop", "DiningTable"),
    "Pot": ("StoveBurner", "Cabinet", "Fridge", "SinkBasin", "Shelf", "CounterTop", "DiningTable"),
    "Kettle": ("StoveBurner", "Cabinet", "SinkBasin", "Shelf", "CounterTop", "DiningTable"),
    "Fork": ("Drawer", "SinkBasin", "CounterTop", "DiningTable"),
    "Spoon": ("Drawer", "SinkBasin", "CounterTop", "DiningTable"),
    "Knife": ("Drawer", "SinkBasin", "CounterTop", "DiningTable"),
    "ButterKnife": ("Drawer", "SinkBasin", "CounterTop", "DiningTable"),
    "Spatula": ("Drawer", "SinkBasin", "CounterTop", "DiningTable"),
    "DishSponge": ("Drawer", "Cabinet", "SinkBasin", "GarbageCan", "Shelf", "CounterTop", "DiningTable"),
    "SaltShaker": ("Cabinet", "Drawer", "Shelf", "CounterTop", "DiningTable"),
    "PepperShaker": ("Cabinet", "Drawer", "Shelf", "CounterTop", "DiningTable"),
    "SoapBottle": ("Cabinet", "Drawer", "Toilet", "GarbageCan", "Shelf", "CounterTop", "DiningTable"),
    "AlarmClock": ("Desk", "Dresser", "Shelf", *_SURFACES),
    "Book": ("Bed", "Desk", "Dresser", "Drawer", "Shelf", "Sofa", "ArmChair", *_SURFACES),
    "CD": ("Drawer", "Desk", "Dresser", "Safe", "Shelf", "GarbageCan", *_SURFACES),
    "CellPhone": ("Bed", *_SMALL_THINGS),
    "CreditCard": _SMALL_THINGS,
    "KeyChain": _SMALL_THINGS,
    "Laptop": ("Bed", "Desk", "Dresser", "Sofa", "ArmChair", *_SURFACES),
    "Pen": ("Desk", "Dresser", "Drawer", "Shelf", "GarbageCan", *_SURFACES),
    "Pencil": ("Desk", "Dresser", "Drawer", "Shelf", "GarbageCan", *_SURFACES),
    "Pillow": ("Bed", "Sofa", "ArmChair"),
    "TissueBox": ("Desk", "Dresser", "Drawer", "Shelf", "Toilet", "TVStand", "Cabinet", "GarbageCan", *_SURFACES),
    "Box": ("Sofa", "ArmChair", "Desk", "Dresser", "Shelf", *_SURFACES),
    "Newspaper": ("Sofa", "ArmChair", "Bed", "Drawer", "Shelf", "GarbageCan", *_SURFACES),
    "RemoteControl": ("Sofa", "ArmChair", "Drawer", "Dresser", "Shelf", *_SURFACES),
    "Statue": ("Shelf", "Safe", "Dresser", *_SURFACES),
    "Vase": ("Shelf", "Safe", "Dresser", *_SURFACES),
    "Watch": ("Drawer", "Safe", "Dresser", "Shelf", *_SURFACES),
    "Candle": ("Toilet", "Drawer", "Cabinet", "Shelf", "CounterTop"),
    "Cloth": ("BathtubBasin", "SinkBasin", "Cabinet", "Drawer", "Toilet", "GarbageCan", "Shelf", "CounterTop"),
    "SoapBar": ("BathtubBasin", "SinkBasin", "Cabinet", "Drawer", "Toilet", "GarbageCan", "Shelf", "CounterTop"),
    "SprayBottle": ("Cabinet", "Drawer", "Toilet", "GarbageCan", "Shelf", "CounterTop"),
    "ToiletPaper": ("ToiletPaperHanger", "Toilet", "Cabinet", "Drawer", "GarbageCan", "Shelf", "CounterTop"),
    "DeskLamp": ("Desk", "SideTable", "Dresser", "CoffeeTable"),
}
"""Receptacle types that an object type fits into."""

HEATABLE = frozenset({"Apple", "Bread", "Cup", "Egg", "Mug", "Plate", "Potato", "Tomato"})
COOLABLE = HEATABLE | {"Bowl", "Lettuce", "Pan", "Pot"}
CLEANABLE = frozenset(
    {"Apple", "Bowl", "ButterKnife", "Cloth", "Cup", "DishSponge", "Egg", "Fork", "Kettle", "Knife", "Lettuce", "Mug"}
    | {"Pan", "Plate", "Pot", "Potato", "SoapBar", "Spatula", "Spoon", "Tomato"}
)
SLICEABLE = frozenset({"Apple", "Bread", "Egg", "Lettuce", "Potato", "Tomato"})

ROOMS_OF_TASK: dict[str, tuple[str, ...]] = {
    "pick_and_place_simple": ROOMS,
    "pick_two_obj_and_place": ROOMS,
    "look_at_obj_in_light": ("bedroom", "livingroom"),
    "pick_clean_then_place_in_recep": ("kitchen", "bathroom"),
    "pick_heat_then_place_in_recep": ("kitchen",),
    "pick_cool_then_place_in_recep": ("kitchen",),
}
"""Rooms of each task type."""

OBJECTS_OF_TASK: dict[str, frozenset[str] | None] = {
    "pick_and_place_simple": None,
    "pick_two_obj_and_place": None,
    "look_at_obj_in_light": None,
    "pick_clean_then_place_in_recep": CLEANABLE,
    "pick_heat_then_place_in_recep": HEATABLE,
    "pick_cool_then_place_in_recep": COOLABLE,
}
"""Objects of each task type; None: any object with a usual place in the room."""
