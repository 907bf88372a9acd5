"""What experts leave behind: recorded episodes, demonstrations, and Minari data sets."""
