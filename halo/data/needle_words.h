// The words that needles are asked by: plain English nouns. Every third one belongs to the same
// pool (needle.h), so a word never moves from one to another unless words are put in before it: add
// new ones at the end.
#pragma once

#include <array>
#include <string_view>

namespace halo {

inline constexpr auto kNeedleWords = std::to_array<std::string_view>({
    "anchor",   "apple",    "apron",    "arrow",    "artist",   "autumn",  "avenue",   "badge",
    "bagel",    "balcony",  "bamboo",   "banner",   "barley",   "barn",    "barrel",   "basket",
    "bathtub",  "battery",  "beacon",   "beaver",   "bedroom",  "beetle",  "bell",     "bench",
    "berry",    "bicycle",  "birch",    "biscuit",  "blanket",  "blossom", "boat",     "bonnet",
    "bottle",   "boulder",  "bracelet", "branch",   "bread",    "breeze",  "brick",    "bridge",
    "broom",    "brush",    "bucket",   "buffalo",  "builder",  "burrow",  "butter",   "button",
    "cabbage",  "cabin",    "cable",    "cactus",   "camel",    "camera",  "canal",    "candle",
    "canoe",    "canvas",   "canyon",   "carpet",   "carriage", "carrot",  "castle",   "cattle",
    "cavern",   "cedar",    "cello",    "cereal",   "chain",    "chalk",   "chapel",   "cheese",
    "cherry",   "chest",    "chimney",  "cinnamon", "circus",   "clay",    "cliff",    "clock",
    "closet",   "cloud",    "clover",   "coast",    "cobweb",   "coffee",  "collar",   "comet",
    "compass",  "copper",   "coral",    "corn",     "cottage",  "cotton",  "cousin",   "coyote",
    "cradle",   "crane",    "crater",   "crayon",   "cricket",  "crown",   "crystal",  "cupboard",
    "curtain",  "cushion",  "dairy",    "daisy",    "dancer",   "deer",    "desert",   "desk",
    "diamond",  "dinner",   "dolphin",  "donkey",   "doorway",  "dragon",  "drawer",   "dress",
    "drum",     "duck",     "dungeon",  "eagle",    "earring",  "easel",   "echo",     "elbow",
    "elephant", "elm",      "ember",    "engine",   "envelope", "factory", "falcon",   "farmer",
    "feather",  "fence",    "fern",     "ferry",    "fiddle",   "field",   "finch",    "fireplace",
    "flag",     "flame",    "flute",    "forest",   "fork",     "fossil",  "fountain", "fox",
    "frame",    "frog",     "furnace",  "galaxy",   "garden",   "garlic",  "gate",     "geyser",
    "ginger",   "giraffe",  "glacier",  "glove",    "goat",     "goose",   "grape",    "gravel",
    "guitar",   "hammer",   "hammock",  "harbor",   "hat",      "hawk",    "hazel",    "hedge",
    "helmet",   "heron",    "hill",     "hinge",    "honey",    "hook",    "horse",    "hotel",
    "island",   "ivory",    "ivy",      "jacket",   "jar",      "jasmine", "jewel",    "jug",
    "juice",    "jungle",   "kayak",    "kettle",   "key",      "kitchen", "kite",     "kitten",
    "ladder",   "lagoon",   "lake",     "lamb",     "lamp",     "lantern", "lawn",     "leather",
    "lemon",    "leopard",  "letter",   "library",  "lily",     "lion",    "lizard",   "lobster",
    "locket",   "lumber",   "magnet",   "maple",    "marble",   "market",  "meadow",   "melon",
    "merchant", "meteor",   "mill",     "mirror",   "mitten",   "monkey",  "moss",     "moth",
    "motor",    "mountain", "muffin",   "museum",   "mushroom", "napkin",  "necklace", "needle",
    "nest",     "nickel",   "notebook", "oak",      "oasis",    "oatmeal", "ocean",    "olive",
    "onion",    "orange",   "orchard",  "organ",    "ostrich",  "otter",   "oven",     "owl",
    "oyster",   "paddle",   "painter",  "palace",   "pancake",  "panther", "paper",    "parrot",
    "pasture",  "peach",    "peacock",  "pearl",    "pebble",   "pelican", "pencil",   "pepper",
    "piano",    "pigeon",   "pillow",   "pilot",    "pine",     "pirate",  "planet",   "plum",
    "pocket",   "pond",     "pony",     "porch",    "potato",   "powder",  "prairie",  "puddle",
    "pumpkin",  "puppet",   "quarry",   "quilt",    "rabbit",   "raccoon", "radio",    "raft",
    "railway",  "rainbow",  "raven",    "reef",     "ribbon",   "river",   "robin",    "rocket",
    "roof",     "rooster",  "rope",     "rose",     "ruby",     "rug",     "saddle",   "sailor",
    "salmon",   "sandal",   "saucer",   "scarf",    "school",   "seal",    "shelf",    "shell",
    "shepherd", "ship",     "shovel",   "silver",   "skate",    "sled",    "snail",    "spider",
    "spoon",    "squirrel", "stable",   "star",     "statue",   "stone",   "stove",    "stream",
    "sugar",    "swan",     "table",    "teapot",   "temple",   "thimble", "thunder",  "tiger",
    "timber",   "tomato",   "torch",    "tower",    "tractor",  "trumpet", "tulip",    "tunnel",
    "turtle",   "umbrella", "valley",   "vase",     "village",  "violin",  "wagon",    "walnut",
    "walrus",   "water",    "wheat",    "whistle",  "willow",   "window",  "winter",   "wolf",
    "yarn",
});

}  // namespace halo
