// The loops by what every processor of its kind has.
#include "loops.h"

TABLE(plain_loops, [] { return bool(true); })
