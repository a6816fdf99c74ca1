"""Times as pages write them, with the zone that they are in."""

DATETIME_FORMAT = "M j, Y, g:i A T"
DATE_FORMAT = "M j, Y"
TIME_FORMAT = "g:i A"
