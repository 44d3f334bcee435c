"""Word lists that the families share, so that a small vocabulary holds each of them as one token."""

PEOPLE = (
    "Ann", "Bob", "Cid", "Dora", "Eve", "Finn", "Gus", "Hana", "Ida", "Jan", "Kim", "Leo", "Mia", "Nils", "Olga", "Pia",
    "Rosa", "Sam", "Tom", "Uma", "Vera", "Walt", "Yara", "Zoe",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "orange", "grey")
PETS = ("cat", "dog", "bird", "fish", "horse", "mouse", "rabbit", "snake", "goat", "duck")
THINGS = (
    "ball", "book", "coin", "cup", "flag", "hat", "key", "lamp", "map", "pen", "ring", "rope", "shell", "stamp", "stone",
    "ticket",
)  # fmt: skip
FRUIT = ("apples", "pears", "plums", "lemons", "figs", "melons", "peaches", "cherries", "grapes", "nuts")
CITIES = (
    "Paris",
    "Rome",
    "Oslo",
    "Cairo",
    "Lima",
    "Delhi",
    "Tokyo",
    "Bern",
    "Quito",
    "Accra",
    "Madrid",
    "Vienna",
)
JOBS = ("baker", "doctor", "farmer", "judge", "nurse", "painter", "pilot", "singer", "tailor", "teacher")
NAMES_OF_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    ("January", 31), ("February", 28), ("March", 31), ("April", 30), ("May", 31), ("June", 30), ("July", 31),
    ("August", 31), ("September", 30), ("October", 31), ("November", 30), ("December", 31),
)  # fmt: skip
PLAIN = (
    "able", "about", "after", "animal", "answer", "apple", "autumn", "balance", "banana", "basket", "beetle", "berry",
    "bitter", "border", "bottle", "bottom", "branch", "bridge", "butter", "button", "cactus", "camera", "candle", "carpet",
    "castle", "cattle", "cellar", "cement", "center", "cherry", "circle", "clever", "coffee", "common", "copper", "corner",
    "cotton", "cousin", "danger", "decade", "dinner", "donkey", "double", "dragon", "eleven", "engine", "fabric", "farmer",
    "feather", "fellow", "finger", "flower", "forest", "fossil", "garden", "garlic", "ginger", "glass", "gravel", "hammer",
    "harbor", "helmet", "hollow", "honey", "insect", "island", "jacket", "jungle", "kettle", "kitchen", "ladder", "lemon",
    "letter", "level", "lizard", "marble", "market", "meadow", "member", "mirror", "mitten", "monkey", "muffin", "needle",
    "noodle", "number", "office", "orange", "oyster", "paddle", "parrot", "pebble", "pencil", "pepper", "pillow", "planet",
    "pocket", "potato", "puddle", "puzzle", "rabbit", "raccoon", "ribbon", "river", "rocket", "saddle", "salad", "school",
    "season", "seven", "shadow", "silver", "sister", "spider", "spoon", "summer", "sunset", "tablet", "teapot", "temple",
    "thunder", "tomato", "tunnel", "turtle", "valley", "velvet", "violet", "wallet", "walnut", "water", "weather", "window",
    "winter", "wooden", "yellow", "zipper",
)  # fmt: skip
