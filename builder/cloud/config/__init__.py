"""What people have configured for other tools already: euca2ools' files and eucarc, as values that know their place.

Nothing here is executed, written or sent. A value's place (file and line, or variable) travels with it, so that every
error can name it; a value itself is shown only where it is no secret.
"""
