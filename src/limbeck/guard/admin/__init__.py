"""The admin API: what the guard's commands do, over HTTP, in the name of whoever holds the admin key."""
