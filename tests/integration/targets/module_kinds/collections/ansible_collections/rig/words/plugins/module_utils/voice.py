def tone(word):
    return "~" + word + "~"
