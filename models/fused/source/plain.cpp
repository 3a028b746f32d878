// The loops for every processor of this kind, without extensions.
#include "loops.h"

TABLE(plain_loops, [] { return bool(true); })
