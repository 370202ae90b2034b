//! What may be asked of other machines, and by which client.
