/** Opening of pictures, for the page and for its worker. */

/** Opens a picture, reduced to at most `longest` pixels on a side. @returns {Promise<ImageBitmap>} */
export async function openPicture(file, longest) {
  const picture = await createImageBitmap(file);
  const scale = longest / Math.max(picture.width, picture.height);
  if (scale >= 1) return picture;
  const side = (length) => Math.max(1, Math.round(length * scale));
  const [resizeWidth, resizeHeight] = [side(picture.width), side(picture.height)];
  return createImageBitmap(picture, { resizeWidth, resizeHeight, resizeQuality: "high" });
}

/**
 * The index of the digit under a place, such as the end of the last stroke; 0 if there is none.
 *
 * @param {{digits: {box: number[]}[]}} reading
 * @param {{x: number, y: number}} place
 */
export function digitAt({ digits }, { x, y }) {
  const under = digits.findIndex(
    ({ box: [left, top, width, height] }) =>
      x >= left && y >= top && x <= left + width && y <= top + height,
  );
  return Math.max(under, 0);
}
