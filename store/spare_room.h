// Room on disk that a store keeps for the day on which its file system is full: the database could
// not be opened then, and so nothing be deleted.
#pragma once

#include "store/layout.h"

namespace kilnfs {

/// Gives the room up if the file system is full. For before anything else is done in the store.
void useSpareRoomIfFull(const Layout& layout);

/// Takes it again, if there is plenty: for when the store is open.
void keepSpareRoom(const Layout& layout);

}  // namespace kilnfs
