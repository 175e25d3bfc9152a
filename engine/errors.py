"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can put right: a wrong argument, a damaged or missing file, missing weights.

    The message is one or two plain sentences for an artist: what went wrong, in which file, what to do.
    The command line prints it without a traceback and exits with code 2; a worker writes it as the job's ``error``
    event.
    """
